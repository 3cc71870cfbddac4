//! One look at a Service, by agents or by this process itself.

use super::args::{CaptureArgs, ObjectArgs, TargetArgs};
use super::failure::Failure;
use super::output::Output;
use super::remote;
use super::session::{End, Observer};
use super::whom::{Whom, whom};
use super::{live, objects};
use crate::explain::Explainer;
use crate::model::query::Query;
use std::time::Duration;

/// What to look at, and how.
pub struct Look<'a> {
    /// The Service.
    pub target: &'a TargetArgs,
    /// Where objects come from.
    pub files: &'a ObjectArgs,
    /// How to look.
    pub capture: &'a CaptureArgs,
    /// Longest look; `None` = until somebody ends it.
    pub window: Option<Duration>,
    /// Not a look from now on: what happened from so long ago till now.
    pub ago: Option<Duration>,
}

impl Look<'_> {
    /// Looks, and says what was asked.
    pub fn run(
        &self,
        explainer: &mut Explainer,
        output: &Output,
        observer: &mut dyn Observer,
    ) -> Result<(End, Query), Failure> {
        objects::check(self.target)?;
        let sources = match whom(self.files, self.capture, output)? {
            Whom::Agents(sources) => sources,
            Whom::Ourselves if self.ago.is_some() => return Err(nobody_knows()),
            Whom::Ourselves => return self.run_here(explainer, output, observer),
        };
        let (query, place) = objects::query_of_agent(self.target, self.files, output)?;
        let query = self.timed(query);
        let request = remote::Request {
            query: &query,
            context: place.cluster().0,
            window: self.window.filter(|_| self.ago.is_none()),
            record: self.capture.record.as_deref(),
        };
        let end = remote::run(sources, &request, explainer, output, observer)?;
        Ok((end, query))
    }

    fn run_here(
        &self,
        explainer: &mut Explainer,
        output: &Output,
        observer: &mut dyn Observer,
    ) -> Result<(End, Query), Failure> {
        let (query, place) = objects::query(self.target, self.files)?;
        let query = self.timed(query);
        let (mut source, objects) = place.read(self.files, &query, output)?;
        let request = live::Request {
            query: query.clone(),
            cluster: place.cluster(),
            window: self.window,
            capture: self.capture,
            source: &mut *source,
            objects,
        };
        Ok((live::run(request, explainer, output, observer)?, query))
    }

    fn timed(&self, query: Query) -> Query {
        let millis = |w: Duration| u64::try_from(w.as_millis()).unwrap_or(u64::MAX);
        Query {
            for_ms: self.window.map_or(0, millis),
            since_ms: self.ago.map(millis),
            ..query
        }
    }
}

/// The past is asked for, and nobody has kept it.
fn nobody_knows() -> Failure {
    Failure::new(
        "no-agent",
        "what happened before this command is known to agents alone, and none answers here",
        "`netflow agent` keeps it from its start on; `netflow install | kubectl apply -f -` runs one on every node",
    )
}
