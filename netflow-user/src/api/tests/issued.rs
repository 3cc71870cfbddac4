//! Both ends with the certificates that `netflow install` makes.

use super::mutual::Fake;
use crate::api::authority::{Credentials, Pair};
use crate::api::client::{Agent, AskError};
use crate::api::dial::{DialError, Identity};
use crate::api::gate::Gate;
use crate::api::places::AGENT_NAME;
use crate::api::server::Serving;
use crate::api::tls::Files;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const DAY: Duration = Duration::from_hours(24);

fn write(dir: &Path, name: &str, credentials: &Credentials) -> Files {
    let Credentials { cert, key, ca } = credentials;
    let file = |what: &str, pem: &str| {
        let path = dir.join(format!("{name}-{what}"));
        fs::write(&path, pem).unwrap();
        path
    };
    Files {
        cert: file("tls.crt", cert),
        key: file("tls.key", key),
        ca: file("ca.crt", ca),
    }
}

/// An agent, and whom it was made for.
struct Place {
    dir: TempDir,
    agent: Files,
    client: Files,
    at: SocketAddr,
    _serving: Serving,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let Pair { agent, client } = Pair::issue(DAY).unwrap();
        let agent = write(dir.path(), "agent", &agent);
        Place::serve(dir, agent, &client)
    }

    fn serve(dir: TempDir, agent: Files, client: &Credentials) -> Place {
        let client = write(dir.path(), "client", client);
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let gate = Gate::open(anywhere, agent.clone(), Arc::new(|_| ())).unwrap();
        let at = gate.at();
        let socket = dir.path().join("netflow.sock");
        let serving = Serving::start(&socket, Some(gate), Fake::default()).unwrap();
        Place {
            dir,
            agent,
            client,
            at,
            _serving: serving,
        }
    }

    fn ask(&self, files: &Files) -> Result<Agent, AskError> {
        let address = format!("https://{}", self.at).parse().unwrap();
        let name = Some(AGENT_NAME.to_owned());
        let pems = files.read().unwrap();
        Agent::connect(&address, Some(&Identity { pems, name }))
    }

    fn refused(&self, files: &Files) -> String {
        let error = self.ask(files).err().unwrap();
        let refused = matches!(error, AskError::Dial(DialError::Refused { .. }));
        assert!(refused, "{error}");
        error.to_string()
    }
}

#[test]
fn the_client_is_answered() {
    let place = Place::new();
    let mut agent = place.ask(&place.client).unwrap();
    assert_eq!(agent.status().unwrap().node, "node-1");
}

#[test]
fn an_agents_certificate_makes_nobody_a_client() {
    let place = Place::new();
    let error = place.refused(&place.agent);
    assert!(error.ends_with("it is none for a client"), "{error}");
}

#[test]
fn a_clients_certificate_makes_nobody_an_agent() {
    let dir = tempfile::tempdir().unwrap();
    let Pair { client, .. } = Pair::issue(DAY).unwrap();
    let pretender = write(dir.path(), "agent", &client);
    let place = Place::serve(dir, pretender, &client);
    let error = place.ask(&place.client).err().unwrap();
    let seen = matches!(error, AskError::Dial(_));
    assert!(seen, "{error}");
}

#[test]
fn renewed_ones_take_the_place_of_the_old_while_the_agent_runs() {
    let place = Place::new();
    assert!(place.ask(&place.client).is_ok());
    let Pair { agent, client } = Pair::issue(DAY).unwrap();
    write(place.dir.path(), "agent", &agent);
    let renewed = write(place.dir.path(), "renewed", &client);
    assert!(place.ask(&renewed).is_ok());
    // Their authorities have one name and two keys.
    let before = Files {
        ca: renewed.ca,
        ..place.client.clone()
    };
    let error = place.refused(&before);
    assert!(error.contains("it is not signed"), "{error}");
}
