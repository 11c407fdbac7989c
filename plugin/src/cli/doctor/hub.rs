//! The hub: token, cache, and whether it answers.

use super::{Args, Finding, State};
use crate::hub::Hub;

/// Answers about the hub. It is asked only if the user wants it.
pub(super) fn findings(args: &Args) -> Vec<Finding> {
    let hub = Hub::from_env(args.model.token_source.clone());
    let access = hub.access();
    let token = if access.token { "a token" } else { "no token" };
    let offline = if access.offline {
        ", HF_HUB_OFFLINE is set"
    } else {
        ""
    };
    let found = format!(
        "{}, {token}{offline}; files in {}",
        access.endpoint,
        access.cache.display()
    );
    let mut findings = vec![match access.token || access.offline {
        true => Finding::ok("hub", found),
        false => Finding {
            hint: Some(
                "private and gated models need one: set HF_TOKEN, or run `hf auth login`"
                    .to_owned(),
            ),
            ..Finding::ok("hub", found)
        },
    }];
    if args.network {
        findings.push(match hub.reach() {
            Ok(()) if access.token => Finding::ok("network", "the hub answers and takes the token"),
            Ok(()) => Finding::ok("network", "the hub answers"),
            Err(failure) => Finding {
                state: State::Error,
                hint: Some(failure.hint().to_owned()),
                ..Finding::ok("network", failure.to_string())
            },
        });
    }
    findings
}
