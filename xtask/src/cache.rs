//! Where what is fetched or built once is kept, outside the tree: unpacked kernels, the programs of a cluster.

use anyhow::{Context, Result};
use std::env;
use std::fs::{self, File};
use std::path::PathBuf;

/// `$NETFLOW_CACHE`, else the user's cache directory.
pub fn dir() -> Result<PathBuf> {
    choose(
        env::var_os("NETFLOW_CACHE").map(PathBuf::from),
        env::var_os("XDG_CACHE_HOME").map(PathBuf::from),
        env::home_dir(),
    )
}

fn choose(own: Option<PathBuf>, xdg: Option<PathBuf>, home: Option<PathBuf>) -> Result<PathBuf> {
    // the XDG base directory specification: a relative path is invalid and ignored
    own.or(xdg
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("netflow")))
        .or(home.map(|home| home.join(".cache/netflow")))
        .context("neither NETFLOW_CACHE nor HOME is set: no place for the cache")
}

/// The unpacked kernels, a directory each.
pub fn kernels() -> Result<PathBuf> {
    Ok(dir()?.join("kernels"))
}

/// The programs of a cluster, a directory for each version of each Go module.
pub fn cluster() -> Result<PathBuf> {
    Ok(dir()?.join("cluster"))
}

/// Held while the cache changes, so that two commands do not fetch or build the same at once.
pub struct Lock(File);

impl Lock {
    /// Waits until nobody else holds it.
    pub fn take() -> Result<Lock> {
        let dir = dir()?;
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let path = dir.join("lock");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        file.lock().with_context(|| path.display().to_string())?;
        Ok(Lock(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let Lock(file) = self;
        // closing releases it as well
        let _ = file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_setting_wins() -> Result<()> {
        let path = |text: &str| Some(PathBuf::from(text));
        let table = [
            (path("/own"), path("/xdg"), path("/home/u"), "/own"),
            (None, path("/xdg"), path("/home/u"), "/xdg/netflow"),
            (None, path("xdg"), path("/home/u"), "/home/u/.cache/netflow"),
            (None, None, path("/home/u"), "/home/u/.cache/netflow"),
        ];
        for (own, xdg, home, expected) in table {
            assert_eq!(choose(own, xdg, home)?, PathBuf::from(expected));
        }
        assert!(choose(None, None, None).is_err());
        Ok(())
    }
}
