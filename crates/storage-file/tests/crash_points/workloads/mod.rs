//! The workloads.

pub(crate) mod appends;
pub(crate) mod repairs;
pub(crate) mod room;
pub(crate) mod snapshots;
pub(crate) mod starts;

use crate::acts::Workload;

pub(crate) fn all() -> Vec<Workload> {
    let all =
        [appends::all(), snapshots::all(), room::all(), repairs::all(), starts::all()].into_iter().flatten();
    all.collect()
}

pub(crate) fn named(name: &str) -> Workload {
    all().into_iter().find(|workload| workload.name == name).unwrap()
}
