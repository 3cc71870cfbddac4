//! Plain columns for a terminal.

use std::fmt::Write;

/// How a column is set.
#[derive(Clone, Copy)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Sets `rows` under `heads` in columns as wide as their widest cell.
pub fn render<const N: usize>(heads: [(&str, Align); N], rows: &[[String; N]]) -> String {
    let mut widths = heads.map(|(head, _)| head.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: [&str; N]| {
        let mut set = String::new();
        for ((cell, width), (_, align)) in cells.iter().zip(widths).zip(heads) {
            let _ = match align {
                Align::Left => write!(set, "{cell:<width$}  "),
                Align::Right => write!(set, "{cell:>width$}  "),
            };
        }
        text.push_str(set.trim_end());
        text.push('\n');
    };
    line(heads.map(|(head, _)| head));
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_their_widest_cell_and_lines_end_clean() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["größer".to_owned(), "1024".to_owned()],
        ];
        assert_eq!(
            render([("name", Align::Left), ("n", Align::Right)], &rows),
            "name       n\na          1\ngrößer  1024\n"
        );
        assert_eq!(
            render([("n", Align::Right), ("name", Align::Left)], &[]),
            "n  name\n"
        );
    }
}
