//! The registers that a program on a function is given are those of the machine, which the target says nothing about.

fn main() -> aya_build::Result<()> {
    aya_build::emit_bpf_target_arch_cfg()
}
