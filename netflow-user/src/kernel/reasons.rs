//! Drop reason numbers to names. The numbers differ from kernel to kernel, so the names come from the running kernel.

use super::btf::{BtfError, KernelTypes};
use std::collections::HashMap;

/// What a kernel says that gives no reason, or none in particular.
pub const NOT_SPECIFIED: &str = "NOT_SPECIFIED";

/// How a number without a name begins.
pub const UNNAMED: &str = "REASON_";

/// The reasons of the running kernel.
#[derive(Debug, Default)]
pub struct DropReasons {
    names: HashMap<u32, Box<str>>,
}

impl DropReasons {
    /// Reads `enum skb_drop_reason` and the enums of subsystems that number their own reasons from
    /// `subsystem << 16` on (include/net/dropreason.h, v6.18). A kernel before 5.17 has none of them.
    pub fn read(types: &KernelTypes) -> Result<Self, BtfError> {
        let mut names = HashMap::new();
        let core = types.enum_values("skb_drop_reason").unwrap_or_default();
        for (name, value) in core {
            insert(&mut names, value, name.strip_prefix("SKB_DROP_REASON_"));
        }
        for subsystem in types.enum_names(|name| name.ends_with("_drop_reason")) {
            for (name, value) in types.enum_values(&subsystem)? {
                if value >> 16 != 0 {
                    insert(&mut names, value, Some(&name));
                }
            }
        }
        Ok(Self { names })
    }

    /// Name of a reason without the common prefix (`NETFILTER_DROP`). A number without a name keeps the number, and a
    /// kernel without reasons gives `NOT_SPECIFIED`.
    pub fn name(&self, number: u32) -> String {
        match self.names.get(&number) {
            Some(name) => name.to_string(),
            None if self.names.is_empty() => NOT_SPECIFIED.to_owned(),
            None => format!("{UNNAMED}{number:#x}"),
        }
    }

    /// The number of a reason, if this kernel has it.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.names
            .iter()
            .find(|(_, known)| known.as_ref() == name)
            .map(|(number, _)| *number)
    }

    /// These reasons.
    #[cfg(any(test, fuzzing))]
    pub fn with(names: impl IntoIterator<Item = (u32, &'static str)>) -> Self {
        DropReasons {
            names: names
                .into_iter()
                .map(|(n, name)| (n, name.into()))
                .collect(),
        }
    }

    /// Whether this kernel says why it drops.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// Enumerators without the prefix (`SKB_CONSUMED`, `SKB_NOT_DROPPED_YET`) are no drops, those with a leading underscore
/// and the two below are bounds and masks.
fn insert(names: &mut HashMap<u32, Box<str>>, value: i64, name: Option<&str>) {
    if let Some(name) = name
        && !name.starts_with('_')
        && !matches!(name, "MAX" | "SUBSYS_MASK")
        && let Ok(number) = u32::try_from(value)
    {
        names.entry(number).or_insert_with(|| name.into());
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::btf::Btf;
    use super::super::btf::tests::Builder;
    use super::*;

    fn reasons(enums: &[(&str, &[(&str, u32)])]) -> DropReasons {
        let mut b = Builder::new();
        for (name, values) in enums {
            b.enumeration(name, values);
        }
        let types = KernelTypes::only(Btf::parse(b.build()).unwrap());
        DropReasons::read(&types).unwrap()
    }

    #[test]
    fn core_and_subsystems() {
        let reasons = reasons(&[
            (
                "skb_drop_reason",
                &[
                    ("SKB_NOT_DROPPED_YET", 0),
                    ("SKB_CONSUMED", 1),
                    ("SKB_DROP_REASON_NOT_SPECIFIED", 2),
                    ("SKB_DROP_REASON_NO_SOCKET", 3),
                    ("SKB_DROP_REASON_MAX", 4),
                    ("SKB_DROP_REASON_SUBSYS_MASK", 0xffff_0000),
                ],
            ),
            (
                "qdisc_drop_reason",
                &[
                    ("__QDISC_DROP", 0x3_0000),
                    ("QDISC_DROP_OVERLIMIT", 0x3_0001),
                ],
            ),
            ("mac80211_drop_reason", &[("RX_CONTINUE", 1)]),
            ("unrelated", &[("SOMETHING", 0x5_0000)]),
        ]);
        for (number, name) in [
            (2, "NOT_SPECIFIED"),
            (3, "NO_SOCKET"),
            (0x3_0001, "QDISC_DROP_OVERLIMIT"),
            (1, "REASON_0x1"),
            (4, "REASON_0x4"),
            (0x3_0000, "REASON_0x30000"),
            (0x5_0000, "REASON_0x50000"),
        ] {
            assert_eq!(reasons.name(number), name);
        }
        assert_eq!(reasons.number("NO_SOCKET"), Some(3));
        assert_eq!(reasons.number("CONSUMED"), None);
    }

    #[test]
    fn a_kernel_without_reasons() {
        let reasons = reasons(&[("other", &[("A", 1)])]);
        assert!(reasons.is_empty());
        assert_eq!(reasons.name(0), "NOT_SPECIFIED");
        assert_eq!(reasons.name(77), "NOT_SPECIFIED");
    }
}
