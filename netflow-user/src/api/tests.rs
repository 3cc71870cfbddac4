//! Addresses, and certificates between both ends.

use super::*;

#[test]
fn a_socket_is_named_as_hubble_names_one() {
    for text in ["unix:///run/a.sock", "unix:/run/a.sock", "/run/a.sock"] {
        let address: Address = text.parse().unwrap();
        assert_eq!(address.to_string(), "unix:///run/a.sock");
    }
}

#[test]
fn an_agent_elsewhere_is_named_by_host_and_port() {
    for (text, told) in [
        ("https://node-1:4250", "https://node-1:4250"),
        ("https://10.0.0.1:4250/", "https://10.0.0.1:4250"),
        ("https://[fd00::1]:4250", "https://[fd00::1]:4250"),
    ] {
        let address: Address = text.parse().unwrap();
        assert_eq!(address.to_string(), told);
    }
}

#[test]
fn what_is_no_address_is_said() {
    for text in [
        "",
        "a.sock",
        "unix://",
        "10.0.0.1:4244",
        "unix:a",
        "http://a:1",
        "https://a",
        "https://:1",
        "https://u@a:1",
        "https://a:1/b",
        "https://a:70000",
    ] {
        let error = text.parse::<Address>().unwrap_err().to_string();
        assert!(error.contains(&format!("`{text}`")), "{error}");
    }
}

mod issued;
mod mutual;
