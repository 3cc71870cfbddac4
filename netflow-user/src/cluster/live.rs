//! Kubernetes objects from the API: listed once, then watched.

mod follow;
mod store;

use super::access::{Access, runtime};
use super::object::WANTED;
use crate::causes::causes;
use crate::model::Time;
use crate::model::objects::Objects;
use crate::model::source::{ObjectSource, SourceError};
use follow::{Failure, Told};
use kube::Client;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use store::Store;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

/// How often it is asked whether the API still answers.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long it may take to answer that, unless it may take less for everything.
const PATIENCE: Duration = Duration::from_secs(2);

/// Least time between two versions of the objects.
const PERIOD: Duration = Duration::from_millis(100);

/// To put a version together takes at most one part in so many of the time.
const REST: u32 = 10;

/// Objects from the API.
pub struct LiveSource {
    told: Receiver<Told>,
    store: Store,
    title: String,
    /// The version that `poll` has still to hand out is another than the one before.
    changed: bool,
    /// Not before then.
    next: Instant,
    /// Ends the thread when it is dropped. Nobody waits for that: a kubeconfig's program or a name server may hold it up.
    _stop: oneshot::Sender<()>,
}

impl LiveSource {
    /// Lists everything that may be read. Where not all of a kind may be, these namespaces are tried.
    ///
    /// # Errors
    /// The API cannot be reached, does not accept us, or is slower than the access allows.
    pub fn open(access: &Access, namespaces: &[String]) -> Result<LiveSource, SourceError> {
        let (to, told) = channel();
        let (stop, stopped) = oneshot::channel();
        let (config, timeout, namespaces) =
            (access.config.clone(), access.timeout, namespaces.to_vec());
        thread::Builder::new()
            .name("kubernetes".into())
            .spawn(move || {
                let Ok(runtime) = runtime() else { return };
                runtime.block_on(async {
                    tokio::select! {
                        () = follow_all(config, timeout, namespaces, to) => {}
                        _ = stopped => {}
                    }
                });
                runtime.shutdown_background();
            })
            .map_err(|e| failed(access, &e.to_string()))?;
        let mut source = LiveSource {
            told,
            store: Store::new(),
            title: access.title(),
            changed: true,
            next: Instant::now(),
            _stop: stop,
        };
        source.list(access)?;
        Ok(source)
    }

    /// Waits for the first list of each kind.
    fn list(&mut self, access: &Access) -> Result<(), SourceError> {
        let mut patience = Patience::new(access.timeout, Instant::now());
        let mut latest = String::new();
        while !self.store.is_complete() {
            match self.told.recv_timeout(patience.left(Instant::now())) {
                Ok(Told::Away(why) | Told::Failing(_, Failure { why, lasts: true })) => {
                    return Err(failed(access, &why));
                }
                Ok(told) => {
                    patience.hear(&told, Instant::now());
                    if let Told::Failing(_, failure) = &told {
                        latest = format!(": {}", failure.why);
                    }
                    self.store.take(told, now());
                }
                Err(RecvTimeoutError::Timeout) => {
                    let missing: Vec<_> = self.store.missing().into_iter().collect();
                    let why = format!(
                        "the list of {} did not go on within {:?}{latest}",
                        missing.join(", "),
                        access.timeout
                    );
                    return Err(failed(access, &why));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(failed(access, "the client ended"));
                }
            }
        }
        Ok(())
    }
}

/// How long is waited for the first lists. Those of a big cluster take long, a page after the other: as long as they go on, they
/// may.
struct Patience {
    timeout: Duration,
    until: Instant,
}

impl Patience {
    fn new(timeout: Duration, now: Instant) -> Patience {
        Patience {
            timeout,
            until: now + timeout,
        }
    }

    fn left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }

    fn hear(&mut self, told: &Told, now: Instant) {
        match told {
            Told::Listing(_)
            | Told::There(..)
            | Told::Listed(_)
            | Told::Gone(_)
            | Told::Refused(..) => {
                self.until = now + self.timeout;
            }
            // It answers, and no list for that.
            Told::Failing(..) | Told::Answered(_) | Told::Away(_) | Told::Back => {}
        }
    }
}

impl ObjectSource for LiveSource {
    fn poll(&mut self) -> Result<Option<Objects>, SourceError> {
        while let Ok(told) = self.told.try_recv() {
            self.changed |= self.store.take(told, now());
        }
        let began = Instant::now();
        if !self.changed || began < self.next {
            return Ok(None);
        }
        self.changed = false;
        let version = self.store.version(now(), &self.title);
        self.next = Instant::now() + PERIOD.max(began.elapsed() * REST);
        Ok(Some(version))
    }
}

/// Follows every kind, and asks whether the API answers at all.
async fn follow_all(
    config: kube::Config,
    timeout: Duration,
    namespaces: Vec<String>,
    to: Sender<Told>,
) {
    let client = match Client::try_from(config) {
        Ok(client) => client,
        Err(e) => {
            drop(to.send(Told::Away(causes(&e))));
            return;
        }
    };
    let (returned, back) = watch::channel(());
    let mut all = JoinSet::new();
    for kind in WANTED {
        all.spawn(follow::follow(
            client.clone(),
            kind,
            namespaces.clone(),
            to.clone(),
            back.clone(),
        ));
    }
    all.spawn(listen(client, timeout.min(PATIENCE), to, returned));
    all.join_all().await;
}

/// Says when the API ceases to answer and when it does again: a watch is silent when it goes on. Those who follow wait for that
/// no longer then.
async fn listen(client: Client, timeout: Duration, to: Sender<Told>, returned: watch::Sender<()>) {
    let mut away = false;
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let told = match tokio::time::timeout(timeout, is_ready(&client)).await {
            Ok(Ok(())) => Told::Back,
            Ok(Err(why)) => Told::Away(why),
            Err(_) => Told::Away(format!("no answer within {timeout:?}")),
        };
        let answers = matches!(told, Told::Back);
        if to.send(told).is_err() {
            return;
        }
        if away && answers {
            returned.send_replace(());
        }
        away = !answers;
    }
}

/// `/readyz` may be read by everybody who is known (`system:public-info-viewer`).
async fn is_ready(client: &Client) -> Result<(), String> {
    let request = http::Request::get("/readyz").body(Vec::new());
    let request = request.map_err(|e| e.to_string())?;
    match client.request_text(request).await {
        // Whatever it says of itself, it answers; what it cannot read it says of each kind.
        Ok(_) | Err(kube::Error::Api(_)) => Ok(()),
        Err(e) => Err(causes(&e)),
    }
}

fn failed(access: &Access, why: &str) -> SourceError {
    SourceError {
        what: format!("Kubernetes API ({})", access.title()),
        why: why.to_owned(),
        hint: "`kubectl get --raw /readyz` asks the same server; --context and --kubeconfig name another, \
               --manifests takes the objects from files"
            .into(),
    }
}

fn now() -> Time {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    Time::default() + elapsed.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::object::Kind;

    #[test]
    fn a_long_list_may_take_long_and_silence_may_not() {
        let second = Duration::from_secs(1);
        let began = Instant::now();
        let mut patience = Patience::new(10 * second, began);
        patience.hear(&Told::Listing((Kind::Pod, None)), began + 8 * second);
        let later = began + 12 * second;
        assert_eq!(patience.left(later), 6 * second);
        let failure = Failure {
            why: "too many requests".into(),
            lasts: false,
        };
        patience.hear(&Told::Failing((Kind::Pod, None), failure), later);
        patience.hear(&Told::Back, later);
        assert_eq!(patience.left(later), 6 * second);
        assert_eq!(patience.left(began + 20 * second), Duration::ZERO);
    }
}
