//! One kind of objects: listed in pages, then watched, for as long as anybody listens.

use super::store::Key;
use crate::causes::causes;
use crate::cluster::object::{Kind, Object};
use crate::cluster::reduce::{self, Invalid};
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::mpsc::Sender;
use tokio::sync::watch::Receiver;
use tower::{BoxError, service_fn};

/// Seconds after which a watch is begun anew: a connection that died without a word is noticed by then.
const WATCH_SECONDS: u32 = 60;

/// A kind, or its objects of one namespace.
pub(super) type Part = (Kind, Option<String>);

/// What is told of the API.
#[derive(Debug)]
pub(super) enum Told {
    /// A list begins, which replaces what was known of the part.
    Listing(Part),
    /// An object of the list, or one that is new or changed.
    There(Part, Box<Object>),
    /// The list is whole.
    Listed(Part),
    /// An object was deleted.
    Gone(Key),
    /// It may not be read, and why; the namespaces that are read instead.
    Refused(Part, String, Vec<String>),
    /// It could not be read this time, and why; it will be tried again.
    Failing(Part, Failure),
    /// The API answers what is asked for the part: a watch that is begun anew is silent until something changes.
    Answered(Part),
    /// The API does not answer, and why.
    Away(String),
    /// It does.
    Back,
}

/// Why a part cannot be read for now.
#[derive(Debug)]
pub(super) struct Failure {
    /// The cause, for people.
    pub why: String,
    /// Nothing that passes: no server, or one that does not know us. Other failures may (too many requests, an old version).
    pub lasts: bool,
}

impl Failure {
    fn of(error: &watcher::Error) -> Failure {
        let lasts = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => status.code == 401,
            watcher::Error::InitialListFailed(_)
            | watcher::Error::WatchStartFailed(_)
            | watcher::Error::WatchFailed(_) => true,
            watcher::Error::NoResourceVersion => false,
        };
        Failure {
            why: causes(error),
            lasts,
        }
    }
}

/// Follows one kind. Where not all of it may be read, these namespaces are.
pub(super) async fn follow(
    client: Client,
    kind: Kind,
    namespaces: Vec<String>,
    to: Sender<Told>,
    back: Receiver<()>,
) {
    let all = Follower {
        client,
        kind,
        to,
        back,
    };
    match kind {
        Kind::Service => {
            let reduce = |o| reduce::service(o).map(Object::from);
            all.spread::<v1::Service>(namespaces, reduce).await;
        }
        Kind::Slice => {
            let reduce = |o| reduce::slice(o).map(Object::from);
            all.spread::<discovery::EndpointSlice>(namespaces, reduce)
                .await;
        }
        Kind::Pod => {
            let reduce = |o| reduce::pod(o).map(Object::from);
            all.spread::<v1::Pod>(namespaces, reduce).await;
        }
        Kind::Policy => {
            let reduce = |o| reduce::policy(o).map(Object::from);
            all.spread::<networking::NetworkPolicy>(namespaces, reduce)
                .await;
        }
        Kind::Node => {
            let reduce = |o| reduce::node(o).map(Object::from);
            all.whole::<v1::Node>(reduce).await;
        }
        Kind::Namespace => {
            let reduce = |o| reduce::namespace(o).map(Object::from);
            all.whole::<v1::Namespace>(reduce).await;
        }
        // The control plane mirrors them into slices.
        Kind::Endpoints => {}
    }
}

/// How an object is reduced.
type Reduce<K> = fn(K) -> Result<Object, Invalid>;

#[derive(Clone)]
struct Follower {
    client: Client,
    kind: Kind,
    to: Sender<Told>,
    /// The API answers again.
    back: Receiver<()>,
}

/// The API does not let us read that.
struct Forbidden(String);

impl Follower {
    /// A kind of the cluster as a whole.
    async fn whole<K>(self, reduce: Reduce<K>)
    where
        K: Resource<Scope = ClusterResourceScope, DynamicType = ()> + Kubernetes,
    {
        let api = Api::<K>::all(self.client_of((self.kind, None)));
        if let Err(Forbidden(why)) = self.each(api, None, reduce).await {
            self.tell(Told::Refused((self.kind, None), why, Vec::new()));
        }
    }

    /// A kind of namespaces: all of them, else those that were named.
    async fn spread<K>(self, namespaces: Vec<String>, reduce: Reduce<K>)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Kubernetes,
    {
        let api = Api::<K>::all(self.client_of((self.kind, None)));
        let Err(Forbidden(why)) = self.each(api, None, reduce).await else {
            return;
        };
        self.tell(Told::Refused((self.kind, None), why, namespaces.clone()));
        let of_one = |namespace: String| {
            let one = self.clone();
            async move {
                let part = Some(namespace.clone());
                let api = Api::<K>::namespaced(one.client_of((one.kind, part.clone())), &namespace);
                if let Err(Forbidden(why)) = one.each(api, part.clone(), reduce).await {
                    one.tell(Told::Refused((one.kind, part), why, Vec::new()));
                }
            }
        };
        futures_util::future::join_all(namespaces.into_iter().map(of_one)).await;
    }

    /// A client that tells when it is answered, which the watcher keeps to itself.
    fn client_of(&self, part: Part) -> Client {
        let (client, to) = (self.client.clone(), self.to.clone());
        let answered = service_fn(move |request| {
            let (client, to, part) = (client.clone(), to.clone(), part.clone());
            async move {
                let answer = client.send(request).await.map_err(inner)?;
                if answer.status().is_success() {
                    // Nobody listens any more: the follower notices by itself.
                    let _ = to.send(Told::Answered(part));
                }
                Ok::<_, BoxError>(answer)
            }
        });
        Client::new(answered, self.client.default_namespace())
    }

    /// Tells each event until nobody listens or it is forbidden to read on.
    async fn each<K>(
        &self,
        api: Api<K>,
        namespace: Option<String>,
        reduce: Reduce<K>,
    ) -> Result<(), Forbidden>
    where
        K: Resource<DynamicType = ()> + Kubernetes,
    {
        let part = (self.kind, namespace);
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let mut events = std::pin::pin!(watcher(api, config));
        let mut pause = Pause::new(self.back.clone());
        let mut listed = false;
        while let Some(event) = next(&mut events).await {
            listed |= matches!(event, Ok(Event::InitDone));
            let failed = event.is_err();
            let told = match event {
                Ok(Event::Init) => Some(Told::Listing(part.clone())),
                Ok(Event::InitDone) => Some(Told::Listed(part.clone())),
                Ok(Event::InitApply(object) | Event::Apply(object)) => {
                    let reduced = reduce(object);
                    // An object that the API accepted and we do not is left out: one field is no reason to know nothing.
                    let there = |object| Told::There(part.clone(), Box::new(object));
                    reduced.ok().map(there)
                }
                Ok(Event::Delete(object)) => {
                    let namespace = object.namespace().unwrap_or_default();
                    Some(Told::Gone((
                        self.kind,
                        namespace.into(),
                        object.name_any().into(),
                    )))
                }
                // What could be read once and is refused now may be let again: rights change.
                Err(error) => match refusal(&error).filter(|_| !listed) {
                    Some(why) => return Err(Forbidden(why)),
                    None => Some(Told::Failing(part.clone(), Failure::of(&error))),
                },
            };
            if told.is_some_and(|told| !self.tell(told)) {
                break;
            }
            if failed {
                pause.wait().await;
            } else {
                pause.over();
            }
        }
        Ok(())
    }

    /// `false`: nobody listens any more.
    fn tell(&self, told: Told) -> bool {
        self.to.send(told).is_ok()
    }
}

/// The error beneath that of a client.
fn inner(error: kube::Error) -> BoxError {
    match error {
        kube::Error::Service(inner) => inner,
        error => error.into(),
    }
}

/// How long is waited after a failure: longer each time, as other clients of the API do, but no longer than it is away.
struct Pause {
    backoff: DefaultBackoff,
    back: Receiver<()>,
}

impl Pause {
    fn new(back: Receiver<()>) -> Pause {
        Pause {
            backoff: DefaultBackoff::default(),
            back,
        }
    }

    async fn wait(&mut self) {
        let Some(pause) = self.backoff.next() else {
            return;
        };
        if let Ok(Ok(())) = tokio::time::timeout(pause, self.back.changed()).await {
            self.over();
        }
    }

    fn over(&mut self) {
        self.backoff.reset();
    }
}

/// What objects of the API are for the client.
trait Kubernetes: Clone + Debug + DeserializeOwned + Send + 'static {}

impl<K: Clone + Debug + DeserializeOwned + Send + 'static> Kubernetes for K {}

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    stream.next().await
}

/// Why the API refuses, where it does: no right, or no such kind there.
fn refusal(error: &watcher::Error) -> Option<String> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status)) = error
    else {
        return None;
    };
    matches!(status.code, 403 | 404).then(|| status.message.clone())
}
