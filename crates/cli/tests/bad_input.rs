//! Bad input against real servers: each is refused by name, with its exit code, and a put works afterwards.
//!
//! `cargo xtask bad-input` prints the table.

#[path = "bad_input/clusters.rs"]
mod clusters;
#[path = "bad_input/directories.rs"]
mod directories;
#[path = "bad_input/frames.rs"]
mod frames;
#[path = "bad_input/operations.rs"]
mod operations;
mod run;

use std::pin::Pin;
use std::sync::Arc;

use atomix_cli::table::Table;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use crate::run::run;

/// Cases at a time: each has servers of its own, which need the cores.
const AT_A_TIME: usize = 2;

/// What came of one bad input.
#[derive(Clone, Debug)]
struct Row {
    case: String,
    /// An exit code, or what happened in place of one.
    ends: String,
    message: String,
    put: String,
}

type Case = Pin<Box<dyn Future<Output = Vec<Row>>>>;

fn cases() -> Vec<Case> {
    vec![
        Box::pin(frames::bytes_that_are_no_frames()),
        Box::pin(frames::frames_that_are_no_handshake()),
        Box::pin(operations::hostile_bodies_of_every_operation()),
        Box::pin(directories::of_another_cluster()),
        Box::pin(directories::in_use()),
        Box::pin(directories::below_a_regular_file()),
        Box::pin(operations::wrong_type_for_a_path()),
        Box::pin(operations::larger_than_the_limits()),
        Box::pin(clusters::unreachable()),
        Box::pin(directories::copied_beside_its_original()),
        Box::pin(clusters::one_of_three_wiped()),
        Box::pin(clusters::three_of_three_wiped()),
    ]
}

#[tokio::test]
async fn bad_input_is_refused_by_name_and_a_put_works_afterwards() {
    let (here, turns) = (LocalSet::new(), Arc::new(Semaphore::new(AT_A_TIME)));
    let run = |case: Case| {
        let turns = turns.clone();
        here.spawn_local(async move {
            let _turn = turns.acquire_owned().await.expect("open");
            case.await
        })
    };
    let running: Vec<_> = cases().into_iter().map(run).collect();
    let mut table = Table::new(["case", "ends with", "message", "put afterwards"]);
    let mut failed = 0;
    here.run_until(async {
        for case in running {
            match case.await {
                Ok(rows) => {
                    rows.into_iter().for_each(|row| table.row([row.case, row.ends, row.message, row.put]))
                }
                Err(_) => failed += 1,
            }
        }
    })
    .await;
    println!("\n{table}");
    assert_eq!(failed, 0, "cases failed: see above");
}

/// A row once a put has worked.
async fn row(case: &str, ends: impl Into<String>, message: impl Into<String>, servers: &[String]) -> Row {
    let put = a_put_works(servers).await;
    let mut message: String = message.into();
    if message.chars().count() > 240 {
        message = message.chars().take(240).chain("...".chars()).collect();
    }
    Row { case: case.into(), ends: ends.into(), message, put }
}

async fn a_put_works(servers: &[String]) -> String {
    let all = servers.join(",");
    run(&["map", "put", "/after", "key", "value", "--cluster", &all]).await.check(0, &[]);
    let got = run(&["map", "get", "/after", "key", "--cluster", &all]).await;
    assert_eq!(got.out, "value\n", "{got:?}");
    "works".into()
}
