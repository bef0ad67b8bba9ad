//! `atomix member plan`: what a change would tolerate.

use atomix::{Index, MemberKind, ServerId};
use serde_json::{Value, json};

use super::add::{fits, member_to_be, newcomer, predecessors};
use super::operator::{Made, Operator};
use super::view::View;
use super::{lesser, members};
use crate::args::MemberPlan;
use crate::exit::{Exit, Failure, say};
use crate::status::member_as_json;
use crate::table::Table;
use atomix::admin::{Change, Plan, Tolerance};

/// Runs the command.
pub(super) async fn run(args: MemberPlan) -> Result<(), Failure> {
    if args.add.is_empty() && args.remove.is_empty() && args.promote.is_empty() && args.demote.is_empty() {
        return Err(Failure::new(Exit::Usage, "a plan of what? --add, --remove, --promote or --demote"));
    }
    let mut operator = Operator::new(&args.making.cluster);
    let view = operator.view().await?;
    let change = change(&args, &operator, &view).await?;
    let plan = operator.plan(change).await?;
    if args.making.json {
        say!("{:#}", as_json(&plan));
    } else {
        say!("{}", as_text(&plan).trim_end());
    }
    Ok(())
}

async fn change(args: &MemberPlan, operator: &Operator, view: &View) -> Result<Change, Failure> {
    let mut change =
        Change { expected: args.making.expected.map_or(view.index(), Index), ..Change::default() };
    let kind = if args.reserve { MemberKind::Reserve } else { MemberKind::Learner };
    for address in &args.add {
        let new = newcomer(address, operator).await?;
        fits(address, &new, view)?;
        change.add.push(member_to_be(&new, kind, 0));
        change.remove.extend(predecessors(view.members(), &new));
    }
    change.remove.extend(args.remove.iter().copied().map(ServerId));
    let promoted = args.promote.iter().map(|id| (ServerId(*id), MemberKind::Voter));
    let demoted = args.demote.iter().map(|id| (ServerId(*id), lesser(args.to)));
    change.set_kind = promoted.chain(demoted).collect();
    Ok(change)
}

fn as_json(plan: &Plan) -> Value {
    let tolerance = |tolerance: &Tolerance| {
        json!({
            "voters": tolerance.voters,
            "quorum": tolerance.quorum,
            "failures": tolerance.failures,
            "answering": tolerance.answering,
        })
    };
    json!({
        "before": tolerance(&plan.before),
        "during": plan.during.as_ref().map(tolerance),
        "after": tolerance(&plan.after),
        "refused": plan.refused.as_ref().map(ToString::to_string),
        "members": plan.configuration.members.iter().map(member_as_json).collect::<Vec<_>>(),
    })
}

fn as_text(plan: &Plan) -> String {
    let mut table = Table::new(["", "voters", "needed", "may fail", "answer now"]);
    let mut row = |name: &str, tolerance: &Tolerance| {
        let numbers = [tolerance.voters, tolerance.quorum, tolerance.failures, tolerance.answering];
        table.row(std::iter::once(name.to_owned()).chain(numbers.iter().map(u32::to_string)));
    };
    row("before", &plan.before);
    if let Some(during) = &plan.during {
        row("during", during);
    }
    row("after", &plan.after);
    let after = Made { index: plan.configuration.index, members: plan.configuration.members.clone() };
    let refused = match &plan.refused {
        Some(refused) => format!("would be refused: {refused}"),
        None => "would be made".to_owned(),
    };
    format!("{table}\nafterwards:\n{}\n{refused}", members(&after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use atomix::admin::{ChangeRefused, Configuration};

    fn plan() -> Plan {
        let tolerance =
            |voters, failures| Tolerance { voters, quorum: voters - failures, failures, answering: voters };
        Plan {
            configuration: Configuration::default(),
            before: tolerance(3, 1),
            during: None,
            after: tolerance(4, 1),
            refused: Some(ChangeRefused::NotEstablished),
        }
    }

    #[test]
    fn text_has_a_row_for_each_stage_and_the_refusal() {
        let text = as_text(&plan());
        for part in ["before", "after", "may fail", "would be refused: the leader has committed nothing"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("during"), "{text}");
        let text = as_text(&Plan { during: Some(plan().before), refused: None, ..plan() });
        assert!(text.contains("during") && text.contains("would be made"), "{text}");
    }

    #[test]
    fn json_has_the_same() {
        let value = as_json(&plan());
        assert_eq!(value["before"], json!({ "voters": 3, "quorum": 2, "failures": 1, "answering": 3 }));
        assert_eq!(value["during"], Value::Null);
        assert!(value["refused"].as_str().is_some_and(|words| words.contains("nothing in its term")));
    }
}
