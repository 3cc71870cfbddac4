//! What tunnels add to a packet is what netflow reckons with, for the kinds that this kernel has. Needs root.

use anyhow::Result;
use netflow_tests::overhead;

#[test]
fn what_a_tunnel_adds_is_what_is_reckoned() -> Result<()> {
    let rows = overhead::measure()?;
    let measured = rows.iter().filter(|row| row.measured.is_some()).count();
    // Every kernel of the lab has VXLAN: both families in both.
    assert!(measured >= 4, "{rows:#?}");
    for row in &rows {
        assert!(row.is_right(), "{row}");
    }
    Ok(())
}
