//! The explanation as a file.

use crate::cli::render::{self, Layout};
use crate::explain::scene::Scene;
use crate::model::Time;
use crate::model::query::{Query, Target};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Columns of the text.
const WIDTH: usize = 100;

/// Writes what `netflow explain -o wide` would say now to a new file in `dir`, and gives its name.
pub fn write(scene: &Scene, dir: &Path) -> io::Result<String> {
    let name = name(scene);
    // Never over another file, nor through a link that somebody put there.
    File::create_new(dir.join(&name))?.write_all(text(scene).as_bytes())?;
    Ok(name)
}

fn text(scene: &Scene) -> String {
    let layout = Layout {
        width: WIDTH,
        wide: true,
    };
    let styled = render::explain(&scene.answer, &scene.query.namespace, layout);
    anstream::adapter::strip_str(&styled).to_string()
}

/// `netflow-NAMESPACE-SERVICE-TIME.txt`.
fn name(scene: &Scene) -> String {
    let Query {
        namespace, target, ..
    } = &scene.query;
    let service = match (&scene.answer.service, target) {
        (Some(service), _) => service.name.clone(),
        (None, Target::Name(name)) => name.clone(),
        (None, Target::Address(ip)) => ip.to_string(),
    };
    let time = time(scene.answer.window.to);
    format!(
        "netflow-{}-{}-{time}.txt",
        plain(namespace),
        plain(&service)
    )
}

/// `20261120T123456.789Z`: of two in one second each has a name.
fn time(at: Time) -> String {
    let text = at.to_string().replace(['-', ':'], "");
    text.get(..19).map_or(text.clone(), |t| format!("{t}Z"))
}

/// A name as typed may hold anything; a file's may not.
fn plain(name: &str) -> String {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
    name.chars()
        .map(|c| if fine(c) { c } else { '-' })
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;
    use crate::cli::screen::samples::busy;

    #[test]
    fn it_holds_the_explanation_without_styles_and_never_replaces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let name = write(&busy(), dir.path()).unwrap();
        assert_eq!(name, "netflow-app-web-api-20261121T000008.204Z.txt");
        let text = std::fs::read_to_string(dir.path().join(&name)).unwrap();
        assert!(text.contains("FAILING  The Service sends connections"));
        assert!(text.contains("Seen through, on worker-1"), "all of it");
        assert!(!text.contains('\u{1b}'));
        let again = write(&busy(), dir.path()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn what_is_typed_for_a_name_leads_nowhere_else() {
        let mut scene = busy();
        scene.query.namespace = "../..".into();
        scene.query.target = Target::Name("a/b".into());
        scene.answer.service = None;
        assert!(
            name(&scene).starts_with("netflow-------a-b-2026"),
            "{}",
            name(&scene)
        );
    }
}
