//! Routing rules as configurations have them.

use super::{Config, GroupScore, Groups, MoeSpec, RouterRule, Scoring};
use crate::Result;

/// Fails if tokens are routed to more experts than the rule can choose from.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config)
pub(super) fn check_top_k(config: &Config, moe: &MoeSpec) -> Result<()> {
    let chooseable = match moe.router.groups {
        None => moe.experts,
        Some(groups) => moe.experts / groups.count * groups.chosen,
    };
    if moe.router.top_k > chooseable {
        let expected = format!("at most the {chooseable} experts to choose from");
        return Err(config.error("num_experts_per_tok", &expected));
    }
    Ok(())
}

/// The groups of `n_group` and `topk_group`, if they restrict the choice among
/// `experts`. `defaults` are the two where the configuration does not say.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) unless the groups divide the experts
/// and are large enough to be scored.
pub(super) fn groups(
    config: &Config,
    experts: usize,
    score: GroupScore,
    defaults: (usize, usize),
) -> Result<Option<Groups>> {
    let count = config.count_or("n_group", defaults.0)?;
    let chosen = config.count_or("topk_group", defaults.1)?;
    if chosen > count {
        return Err(config.error(
            "topk_group",
            &format!("at most the {count} groups there are"),
        ));
    }
    if chosen == count {
        return Ok(None);
    }
    let least = score.values();
    if !experts.is_multiple_of(count) || experts / count < least {
        let expected = format!("a divisor of {experts} experts that leaves {least} in each group");
        return Err(config.error("n_group", &expected));
    }
    Ok(Some(Groups {
        count,
        chosen,
        score,
    }))
}

/// The rule of DeepSeek-V3, which GLM-4.5 and Kimi-K2 share: sigmoid scores, a
/// bias for the choice alone, groups by their two best. `groups` and `scale`
/// are those where the configuration does not say.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config)
pub(super) fn biased_sigmoid(
    config: &Config,
    groups: (usize, usize),
    scale: f64,
) -> Result<RouterRule> {
    config.require_one_of("scoring_func", &["sigmoid"])?;
    config.require_one_of("topk_method", &["noaux_tc"])?;
    Ok(RouterRule {
        top_k: config.count("num_experts_per_tok")?,
        scoring: Scoring::Sigmoid,
        correction_bias: true,
        groups: self::groups(
            config,
            config.count("n_routed_experts")?,
            GroupScore::BestTwo,
            groups,
        )?,
        renormalize: config.flag_or("norm_topk_prob", true)?,
        scale: config.positive_or("routed_scaling_factor", scale)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{json, Value};

    use super::*;

    fn config(value: Value) -> Config {
        Config::new("config.json", value).unwrap()
    }

    #[test]
    fn groups_that_are_all_chosen_are_none() {
        let groups = |n, k| {
            groups(
                &config(json!({"n_group": n, "topk_group": k})),
                16,
                GroupScore::BestTwo,
                (1, 1),
            )
        };
        assert_eq!(groups(1, 1).unwrap(), None);
        assert_eq!(groups(4, 4).unwrap(), None);
        let expected = Groups {
            count: 4,
            chosen: 2,
            score: GroupScore::BestTwo,
        };
        assert_eq!(groups(4, 2).unwrap(), Some(expected));
        // More chosen than there are, no divisor, one expert each.
        assert!(groups(4, 5).is_err() && groups(5, 2).is_err() && groups(16, 2).is_err());
    }

    #[test]
    fn what_is_not_said_is_the_familys() {
        let value = json!({"num_experts_per_tok": 2, "n_routed_experts": 8});
        let rule = biased_sigmoid(&config(value), (4, 2), 2.5).unwrap();
        let expected = Groups {
            count: 4,
            chosen: 2,
            score: GroupScore::BestTwo,
        };
        assert_eq!(
            (rule.groups, rule.scale, rule.renormalize),
            (Some(expected), 2.5, true)
        );
    }

    #[test]
    fn more_experts_per_token_than_groups_hold_are_refused() {
        let check = |top_k, n, k| {
            let value = json!({"num_experts_per_tok": top_k, "n_routed_experts": 8,
                "n_group": n, "topk_group": k});
            let config = config(value);
            let moe = MoeSpec {
                experts: 8,
                intermediate: 4,
                router: biased_sigmoid(&config, (1, 1), 1.0).unwrap(),
                shared: None,
            };
            check_top_k(&config, &moe).is_ok()
        };
        assert!(check(8, 1, 1) && check(4, 4, 2) && check(2, 4, 1));
        assert!(!check(9, 1, 1) && !check(5, 4, 2) && !check(3, 4, 1));
    }

    #[test]
    fn other_ways_to_score_are_refused() {
        let rule = |field: &str, value: &str| {
            let value = json!({"num_experts_per_tok": 2, "n_routed_experts": 8, field: value});
            biased_sigmoid(&config(value), (1, 1), 1.0)
        };
        assert!(rule("scoring_func", "sigmoid").is_ok());
        assert!(rule("scoring_func", "softmax").is_err());
        assert!(rule("topk_method", "greedy").is_err());
    }
}
