//! How the Kubernetes API is reached: a kubeconfig as kubectl reads it, or the service account of the Pod that this runs in.

use crate::causes::causes;
use crate::model::source::SourceError;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// What was asked for; `None` as kubectl has it.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The file, instead of those that `KUBECONFIG` names or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Context, instead of the current one.
    pub context: Option<String>,
    /// User to act as.
    pub act_as: Option<String>,
    /// How long the API may take to answer.
    pub timeout: Duration,
}

/// A way to an API server.
#[derive(Debug, Clone)]
pub struct Access {
    pub(super) config: Config,
    pub(super) timeout: Duration,
    /// Name of the context; empty in a Pod.
    pub context: String,
    /// Address of the API server.
    pub server: String,
}

/// The API cannot be reached that way.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// There is neither a kubeconfig nor a service account.
    #[error("there is no kubeconfig, and this is no Pod with a service account")]
    Nothing,
    /// The kubeconfig does not serve.
    #[error("{file}: {why}")]
    Kubeconfig {
        /// Where it is, or what names it.
        file: String,
        /// What is wrong with it, causes included.
        why: String,
    },
    /// The service account of this Pod does not serve.
    #[error("the service account of this Pod: {0}")]
    InCluster(String),
    /// No thread or socket could be had.
    #[error("the API client cannot start: {0}")]
    Runtime(#[from] io::Error),
}

impl AccessError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            AccessError::Nothing => {
                "give --kubeconfig FILE, or --manifests a file or directory, for example the output of \
                 `kubectl get svc,endpointslices,pods,nodes,namespaces,networkpolicies -A -o yaml`"
            }
            AccessError::Kubeconfig { .. } => {
                "`kubectl config view` shows what is read; --kubeconfig and --context choose another"
            }
            AccessError::InCluster(_) => "a Pod needs its service account's token mounted",
            AccessError::Runtime(_) => "",
        }
    }
}

impl From<AccessError> for SourceError {
    fn from(error: AccessError) -> SourceError {
        SourceError {
            what: "Kubernetes API".into(),
            why: error.to_string(),
            hint: error.hint().into(),
        }
    }
}

impl Access {
    /// Finds the way. Nothing is asked of the server yet.
    pub fn find(wish: &Wish) -> Result<Access, AccessError> {
        let (mut config, context) = match kubeconfig(wish.kubeconfig.as_deref())? {
            Some((kubeconfig, file)) => from_file(kubeconfig, &file, wish)?,
            None if wish.context.is_some() => return Err(AccessError::Nothing),
            None => (in_cluster()?, String::new()),
        };
        config.connect_timeout = Some(wish.timeout);
        if wish.act_as.is_some() {
            config.auth_info.impersonate.clone_from(&wish.act_as);
        }
        Ok(Access {
            server: config.cluster_url.to_string().trim_end_matches('/').into(),
            config,
            timeout: wish.timeout,
            context,
        })
    }

    /// The namespace of the context.
    pub fn namespace(&self) -> &str {
        &self.config.default_namespace
    }

    /// As answers name where objects come from.
    pub fn title(&self) -> String {
        let parts = [&*self.context, &*self.server];
        parts
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// The kubeconfig and what it is called; `None` where there is none.
fn kubeconfig(given: Option<&Path>) -> Result<Option<(Kubeconfig, String)>, AccessError> {
    if let Some(path) = given {
        return Ok(Some((read(path)?, path.display().to_string())));
    }
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    // Those that are not there do not count, as for kubectl.
    let files: Vec<PathBuf> = std::env::split_paths(&listed)
        .filter(|path| path.exists())
        .collect();
    if let Some((first, more)) = files.split_first() {
        let mut merged = read(first)?;
        for path in more {
            let next = read(path)?;
            let name = path.display().to_string();
            merged = merged.merge(next).map_err(|e| broken(&name, &e))?;
        }
        return Ok(Some((merged, listed.to_string_lossy().into_owned())));
    }
    match Kubeconfig::read() {
        Ok(read) => Ok(Some((read, "~/.kube/config".into()))),
        Err(KubeconfigError::FindPath) => Ok(None),
        Err(KubeconfigError::ReadConfig(e, _)) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(broken("~/.kube/config", &e)),
    }
}

fn read(path: &Path) -> Result<Kubeconfig, AccessError> {
    let file = path.display().to_string();
    Kubeconfig::read_from(path).map_err(|e| broken(&file, &e))
}

fn broken(file: &str, error: &dyn std::error::Error) -> AccessError {
    AccessError::Kubeconfig {
        file: file.to_owned(),
        why: causes(error),
    }
}

fn from_file(
    kubeconfig: Kubeconfig,
    file: &str,
    wish: &Wish,
) -> Result<(Config, String), AccessError> {
    let current = kubeconfig.current_context.clone();
    let context = wish.context.clone().or(current).unwrap_or_default();
    let options = KubeConfigOptions {
        context: wish.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = wait(Config::from_custom_kubeconfig(kubeconfig, &options))?;
    Ok((config.map_err(|e| broken(file, &e))?, context))
}

fn in_cluster() -> Result<Config, AccessError> {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
        return Err(AccessError::Nothing);
    }
    Config::incluster().map_err(|e| AccessError::InCluster(causes(&e)))
}

/// A runtime for one thread.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn wait<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(runtime()?.block_on(future))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;
    use std::fs;

    const FILE: &str = "\
apiVersion: v1
kind: Config
current-context: one
contexts:
- {name: one, context: {cluster: c, user: u}}
- {name: two, context: {cluster: c, user: u, namespace: shop}}
clusters:
- {name: c, cluster: {server: 'https://192.0.2.1:6443'}}
users:
- {name: u, user: {token: secret}}
";

    fn found(text: &str, wish: Wish) -> Result<Access, AccessError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, text).unwrap();
        Access::find(&Wish {
            kubeconfig: Some(path),
            ..wish
        })
    }

    #[test]
    fn the_context_says_server_and_namespace() {
        let one = found(FILE, Wish::default()).unwrap();
        assert_eq!(one.title(), "one https://192.0.2.1:6443");
        assert_eq!(one.namespace(), "default");
        let two = found(
            FILE,
            Wish {
                context: Some("two".into()),
                act_as: Some("jane".into()),
                ..Wish::default()
            },
        );
        let two = two.unwrap();
        assert_eq!(two.context, "two");
        assert_eq!(two.namespace(), "shop");
        assert_eq!(two.config.auth_info.impersonate.as_deref(), Some("jane"));
    }

    #[test]
    fn what_does_not_serve_is_said() {
        let other = Wish {
            context: Some("three".into()),
            ..Wish::default()
        };
        let error = found(FILE, other).unwrap_err().to_string();
        assert!(error.contains("three"), "{error}");
        let error = found("contexts: [", Wish::default()).unwrap_err();
        assert!(error.to_string().contains("config: "), "{error}");
        let missing = Access::find(&Wish {
            kubeconfig: Some("/no/such/kubeconfig".into()),
            ..Wish::default()
        });
        let error = missing.unwrap_err().to_string();
        assert!(error.starts_with("/no/such/kubeconfig: "), "{error}");
    }
}
