//! How log and snapshots belong together.

use atomix_protocol::EntryId;

use super::verdict::Fit;
use crate::catalog::Catalog;

/// Decides it. `usable` is the newest snapshot that verifies, `newest` the newest of which anything says that there was one.
pub(crate) fn fit(catalog: &Catalog, usable: Option<EntryId>, newest: Option<EntryId>) -> Fit {
    let start = usable.unwrap_or(EntryId::ZERO);
    let holds = |id: EntryId| catalog.id_at(id.index) == Some(id);
    if newest.is_some_and(|newest| newest.index > start.index && !holds(newest)) {
        if holds(start) { Fit::Short } else { Fit::Gap }
    } else if holds(start) {
        Fit::Joined
    } else if catalog.base().index > start.index {
        Fit::Gap
    } else {
        Fit::Apart
    }
}

#[cfg(test)]
mod tests {
    use atomix_protocol::{Index, Term};

    use super::*;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId::new(Term(term), Index(index))
    }

    #[test]
    fn log_and_snapshot() {
        // The log holds entries 4@1 and 5@2, right behind 3@1.
        let mut catalog = Catalog::after(id(1, 3));
        catalog.append(1, 0, 64, id(1, 4));
        catalog.append(1, 0, 164, id(2, 5));
        let cases = [
            (Some(id(1, 3)), Some(id(1, 3)), Fit::Joined),
            (Some(id(2, 5)), Some(id(2, 5)), Fit::Joined),
            (Some(id(3, 5)), Some(id(3, 5)), Fit::Apart),
            (Some(id(2, 6)), Some(id(2, 6)), Fit::Apart),
            (Some(id(2, 3)), Some(id(2, 3)), Fit::Apart),
            (Some(id(1, 4)), Some(id(2, 5)), Fit::Joined),
            (None, None, Fit::Gap),
            (Some(id(1, 2)), Some(id(1, 2)), Fit::Gap),
            (Some(id(1, 4)), Some(id(3, 5)), Fit::Short),
            (Some(id(1, 4)), Some(id(2, 6)), Fit::Short),
            (Some(id(1, 2)), Some(id(1, 4)), Fit::Gap),
            (Some(id(3, 5)), Some(id(3, 6)), Fit::Gap),
            (None, Some(id(1, 4)), Fit::Gap),
        ];
        for (usable, newest, wanted) in cases {
            assert_eq!(fit(&catalog, usable, newest), wanted, "{usable:?} {newest:?}");
        }
    }
}
