//! What a tunnel adds to a packet is what netflow reckons with. Of VXLAN, which every kernel of the lab has; `netflow-lab overhead` measures the
//! others, whose modules leave devices in the machine's own namespace. Needs root.

use anyhow::Result;
use netflow_tests::overhead;

#[test]
fn what_a_tunnel_adds_is_what_is_reckoned() -> Result<()> {
    let rows = overhead::measure(|kind| kind.starts_with("vxlan"))?;
    let measured = rows.iter().filter(|row| row.measured.is_some()).count();
    // Both families in both.
    assert_eq!(measured, 4, "{rows:#?}");
    for row in &rows {
        assert!(row.is_right(), "{row}");
    }
    Ok(())
}
