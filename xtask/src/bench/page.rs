//! The page that numbers are written down in: each block of it is what one command printed.

use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;

/// The page.
pub const PAGE: &str = "docs/bench.md";

/// Lines around a block: a comment above that names the command, one below.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    /// The line above.
    pub begin: &'static str,
    /// The line below.
    pub end: &'static str,
}

impl Block {
    /// What is above the block in `page`, the block, and what is below.
    fn cut(self, page: &str) -> Option<(&str, &str, &str)> {
        let (above, rest) = page.split_once(self.begin)?;
        let (block, below) = rest.split_once(self.end)?;
        Some((above, block.trim_start(), below))
    }

    /// `page` with `text`, which ends with a line's end, in the place of the block that it has.
    fn replaced(self, page: &str, text: &str) -> Option<String> {
        let (above, _, below) = self.cut(page)?;
        let Block { begin, end } = self;
        Some(format!("{above}{begin}\n{text}{end}{below}"))
    }

    /// The block as it is.
    pub fn read(self) -> Result<String> {
        let path = path();
        let page = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let (_, block, _) = self.cut(&page).with_context(|| self.missing())?;
        Ok(block.to_owned())
    }

    /// Writes `text` down in the place of the block.
    pub fn write(self, text: &str) -> Result<()> {
        let path = path();
        let page = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let page = self.replaced(&page, text).with_context(|| self.missing())?;
        fs::write(&path, page).with_context(|| path.display().to_string())?;
        eprintln!("written to {PAGE}");
        Ok(())
    }

    fn missing(self) -> String {
        format!("{PAGE} lacks the line `{}` or `{}`", self.begin, self.end)
    }
}

fn path() -> PathBuf {
    workspace::root().join(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_a_block_stays() {
        let block = Block {
            begin: "<!-- a -->",
            end: "<!-- end of a -->",
        };
        let page = "# Title\n\n<!-- a -->\nold\n<!-- end of a -->\n\nMore.\n";
        let written = block.replaced(page, "new\n");
        let expected = "# Title\n\n<!-- a -->\nnew\n<!-- end of a -->\n\nMore.\n";
        assert_eq!(written.as_deref(), Some(expected));
        assert_eq!(block.replaced("# Title\n", "new\n"), None);
    }
}
