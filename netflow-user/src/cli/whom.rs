//! Who looks: agents, or this process itself.

use super::args::{CaptureArgs, ObjectArgs};
use super::failure::Failure;
use super::fleet::Fleet;
use super::live;
use super::objects::Place;
use super::output::Output;
use super::remote::Source;
use crate::api::client::{Agent, AskError};
use crate::api::{Address, SOCKET};
use crate::cluster::agents::AgentsError;

/// Who looks.
pub enum Whom {
    /// These agents.
    Agents(Vec<Source>),
    /// We do.
    Ourselves,
}

/// The first of these that there is:
///
/// 1. the agent that `--server` names;
/// 2. this process, where the command asks for something that no agent can heed: `--standalone`, files, tiers;
/// 3. with `--cluster`, all agents of the cluster and nobody else;
/// 4. the agent of this node, unless a cluster is chosen;
/// 5. all agents of the cluster that the kubeconfig names;
/// 6. this process.
pub fn whom(objects: &ObjectArgs, capture: &CaptureArgs, output: &Output) -> Result<Whom, Failure> {
    if let Some(server) = &capture.server {
        let identity = capture.identity.identity()?;
        let agent = Agent::connect(server, identity.as_ref())?;
        return Ok(Whom::Agents(vec![Source::only(agent)]));
    }
    if capture.standalone || capture.tiers.is_chosen() || !objects.manifests.is_empty() {
        return Ok(Whom::Ourselves);
    }
    if capture.cluster {
        let fleet = Fleet::find(&Place::of_api(&objects.api)?)?;
        return Ok(Whom::Agents(fleet.sources()));
    }
    let near = match nearest(objects) {
        Ok(Some(agent)) => return Ok(Whom::Agents(vec![Source::only(agent)])),
        Ok(None) => None,
        Err(e) => Some(e),
    };
    if let Some(fleet) = far(objects, output)? {
        return Ok(Whom::Agents(fleet.sources()));
    }
    if let Some(e) = near {
        output.notice(format_args!("{e}: this command looks itself"));
    }
    Ok(Whom::Ourselves)
}

/// The agent of this node, where it may know what is asked.
fn nearest(objects: &ObjectArgs) -> Result<Option<Agent>, AskError> {
    if objects.api.is_chosen() {
        return Ok(None);
    }
    match Agent::connect(&Address::Socket(SOCKET.into()), None) {
        Ok(agent) => Ok(Some(agent)),
        Err(AskError::Absent(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The agents of the cluster. Whoever may look here does so where there are none, or none that may be asked.
fn far(objects: &ObjectArgs, output: &Output) -> Result<Option<Fleet>, Failure> {
    let Ok(access) = Place::of_api(&objects.api) else {
        // What looks here says what is wrong with it.
        return Ok(None);
    };
    let error = match Fleet::find(&access) {
        Ok(fleet) => return Ok(Some(fleet)),
        Err(e) => e,
    };
    match &error {
        // The objects would have to come from there too.
        AgentsError::Api { .. } => Err(error.into()),
        AgentsError::Denied { .. } | AgentsError::NoCertificate(_)
            if live::check_rights().is_err() =>
        {
            Err(error.into())
        }
        AgentsError::None { .. } | AgentsError::Denied { .. } | AgentsError::NoCertificate(_) => {
            output.detail(format_args!("{error}: this command looks itself"));
            Ok(None)
        }
    }
}
