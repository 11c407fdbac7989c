//! The rules by which routers choose experts.

/// How router logits become experts and gate values.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterRule {
    /// Experts each token is routed to, k.
    pub top_k: usize,
    /// From logits to scores.
    pub scoring: Scoring,
    /// Whether the router has a bias `[E]` that is added to the scores for the
    /// choice of experts, but not to their gate values (DeepSeek-V3, arXiv
    /// 2412.19437, equation 16).
    pub correction_bias: bool,
    /// Whether a token's experts come from a few groups only.
    pub groups: Option<Groups>,
    /// Whether the scores of the chosen experts are divided by their sum.
    pub renormalize: bool,
    /// What gate values are multiplied by at last.
    pub scale: f64,
}

/// From router logits to scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// A sigmoid of each logit.
    Sigmoid,
    /// Experts one after the other, the gate value of each a softmax over those
    /// not chosen yet whose logits are within a relative 2ε of the best
    /// (SparseMixer-v2, arXiv 2409.12136).
    SparseMixer {
        /// ε.
        jitter: f64,
    },
}

/// Experts 0..E in consecutive groups of equal size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// Number of groups; divides E.
    pub count: usize,
    /// Groups a token may take experts from; fewer than `count`.
    pub chosen: usize,
    /// What a group is chosen by.
    pub score: GroupScore,
}

/// What a group of experts is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupScore {
    /// Its best score (DeepSeek-V2).
    Best,
    /// The sum of its two best scores, bias included (DeepSeek-V3).
    BestTwo,
}

impl GroupScore {
    /// How many scores of a group it takes.
    pub(in crate::family) fn values(self) -> usize {
        match self {
            Self::Best => 1,
            Self::BestTwo => 2,
        }
    }
}

impl RouterRule {
    /// Softmax over all experts, then the top k.
    pub fn softmax(top_k: usize, renormalize: bool) -> Self {
        Self {
            top_k,
            scoring: Scoring::Softmax,
            correction_bias: false,
            groups: None,
            renormalize,
            scale: 1.0,
        }
    }

    /// Groups that must keep equally many experts: 1 if there are none.
    pub fn group_count(&self) -> usize {
        self.groups.map_or(1, |groups| groups.count)
    }

    /// The fewest experts that the rule can choose from.
    pub fn floor(&self) -> usize {
        self.group_count() * self.group_floor()
    }

    /// Why there is that [`floor`](Self::floor), as a clause.
    pub fn floor_reason(&self) -> String {
        let Some(groups) = self.groups else {
            return "the model routes each token to so many".to_owned();
        };
        let (each, count) = (self.group_floor(), groups.count);
        if each > groups.score.values() {
            let (top_k, chosen) = (self.top_k, groups.chosen);
            format!("{each} in each of {count} groups: a token takes {top_k} from {chosen} groups")
        } else {
            let best = match groups.score {
                GroupScore::Best => "best",
                GroupScore::BestTwo => "two best",
            };
            format!("{each} in each of {count} groups: a group is chosen by its {best}")
        }
    }

    /// The fewest experts that a group needs.
    fn group_floor(&self) -> usize {
        match self.groups {
            None => self.top_k,
            Some(groups) => self
                .top_k
                .div_ceil(groups.chosen)
                .max(groups.score.values()),
        }
    }

    /// The consecutive experts of each group of a layer with `experts`.
    pub fn group_ranges(&self, experts: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        let size = experts / self.group_count();
        (0..self.group_count()).map(move |group| group * size..(group + 1) * size)
    }
}

/// In a line: `sigmoid + bias, 4 of 8 groups, top 8, renormalised, × 2.5`.
impl std::fmt::Display for RouterRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.scoring {
            Scoring::Softmax => "softmax",
            Scoring::Sigmoid => "sigmoid",
            Scoring::SparseMixer { .. } => "sparse mixer",
        })?;
        if self.correction_bias {
            f.write_str(" + bias")?;
        }
        if let Some(groups) = self.groups {
            write!(f, ", {} of {} groups", groups.chosen, groups.count)?;
        }
        write!(f, ", top {}", self.top_k)?;
        if self.renormalize {
            f.write_str(", renormalised")?;
        }
        if self.scale != 1.0 {
            write!(f, ", × {}", self.scale)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_lets_every_choice_of_groups_fill_top_k() {
        let mut rule = RouterRule::softmax(6, false);
        assert_eq!((rule.floor(), rule.group_count()), (6, 1));
        // DeepSeek-V2: 3 of 8 groups must hold 6 experts.
        rule.groups = Some(Groups {
            count: 8,
            chosen: 3,
            score: GroupScore::Best,
        });
        assert_eq!((rule.floor(), rule.group_count()), (16, 8));
        // A group's score takes two experts, however few are chosen.
        rule.top_k = 3;
        assert_eq!(rule.floor(), 8);
        rule.groups = Some(Groups {
            count: 8,
            chosen: 3,
            score: GroupScore::BestTwo,
        });
        assert_eq!(rule.floor(), 16);
        assert_eq!(
            rule.floor_reason(),
            "2 in each of 8 groups: a group is chosen by its two best"
        );
        rule.top_k = 8;
        assert_eq!(
            rule.floor_reason(),
            "3 in each of 8 groups: a token takes 8 from 3 groups"
        );
    }

    #[test]
    fn a_rule_is_said_in_a_line() {
        assert_eq!(RouterRule::softmax(2, false).to_string(), "softmax, top 2");
        let deepseek_v3 = RouterRule {
            top_k: 8,
            scoring: Scoring::Sigmoid,
            correction_bias: true,
            groups: Some(Groups {
                count: 8,
                chosen: 4,
                score: GroupScore::BestTwo,
            }),
            renormalize: true,
            scale: 2.5,
        };
        let expected = "sigmoid + bias, 4 of 8 groups, top 8, renormalised, × 2.5";
        assert_eq!(deepseek_v3.to_string(), expected);
    }

    #[test]
    fn groups_are_consecutive() {
        let mut rule = RouterRule::softmax(2, false);
        assert!(rule.group_ranges(6).eq(std::iter::once(0..6)));
        rule.groups = Some(Groups {
            count: 3,
            chosen: 2,
            score: GroupScore::Best,
        });
        assert_eq!(rule.group_ranges(6).collect::<Vec<_>>(), [0..2, 2..4, 4..6]);
    }
}
