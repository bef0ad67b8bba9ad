//! Fenced writes: taken from the last holder only.

use atomix_resource::fencing::{FenceRefusal, Fencing, FencingToken};
use atomix_resource::management::{self, Deleted};
use atomix_resource::{ResourceId, Sequence};

use super::*;

/// What a holder has. Any resource will do for the lock: what counts is whether it is there.
pub(super) struct Guard(pub(super) FencingToken);

impl Fencing for Guard {
    fn fencing_token(&self) -> FencingToken {
        self.0
    }
}

/// A lock at this path.
fn lock(session: &Arc<dyn Session>, path: &str) -> ResourceId {
    ready(Handle::<MapState>::open(session, path, &(), Sharing::Own)).unwrap().resource()
}

/// The grant that is granted now, by the entry of whatever command.
fn granted(session: &Arc<dyn Session>, lock: ResourceId) -> Guard {
    let (index, _) = ready(handle(session).command(&Unwatch { watch: Sequence(0) })).unwrap();
    Guard(FencingToken { lock, token: index })
}

fn out_of_date(guard: &Guard, greatest: &Guard) -> MapError {
    let (token, greatest) = (guard.0.token, greatest.0.token);
    MapError::Fenced(FenceRefusal::OutOfDate { token, greatest })
}

#[test]
fn every_write_of_a_holder_is_refused_once_a_later_one_has_been_here() {
    let loopback = loopback();
    let (ada, bob) = (loopback.session(), loopback.session());
    let (adas, bobs) = (map::<u8>(&ada), map::<u8>(&bob));
    let lock = lock(&ada, "/lock");
    let first = granted(&ada, lock);
    let fenced = adas.fenced(&first);
    assert_eq!(ready(fenced.put("k", &1)), Ok(None));
    let second = granted(&bob, lock);
    // The later holder has not been here yet.
    assert_eq!(ready(fenced.put("k", &2)), Ok(Some(1)));
    assert_eq!(ready(bobs.fenced(&second).put("k", &3)), Ok(Some(2)));

    let version = ready(fenced.get_versioned("k")).unwrap().unwrap().version;
    let mut changes = ready(bobs.watch()).unwrap();
    let refused = out_of_date(&first, &second);
    assert!(refused.is_not_done() && !refused.is_unknown());
    assert_eq!(ready(fenced.put("k", &9)), Err(refused.clone()));
    assert_eq!(ready(fenced.put_if_absent("new", &9)), Err(refused.clone()));
    assert_eq!(ready(fenced.replace("k", &9)), Err(refused.clone()));
    assert_eq!(ready(fenced.replace_if("k", version, &9)), Err(refused.clone()));
    assert_eq!(ready(fenced.remove("k")), Err(refused.clone()));
    assert_eq!(ready(fenced.remove_if("k", version)), Err(refused.clone()));
    assert_eq!(ready(fenced.clear()), Err(refused.clone()));
    assert_eq!(ready(adas.entries()), Ok(vec![("k".to_owned(), 3)]));
    assert_eq!(taken(&mut changes), []);

    // The servers go on from a snapshot, and have not forgotten.
    loopback.snapshot_and_restore(register(Registry::new()));
    assert_eq!(ready(fenced.put("k", &9)), Err(refused));
}

#[test]
fn a_fenced_write_is_the_write_that_it_is_without_the_fence() {
    let session = loopback().session();
    let map = map::<u8>(&session);
    let lock = lock(&session, "/lock");
    let fenced = map.fenced(&granted(&session, lock));
    assert_eq!(ready(fenced.replace("k", &1)), Ok(None));
    assert_eq!(ready(fenced.put_if_absent("k", &1)), Ok(None));
    assert_eq!(ready(fenced.put_if_absent("k", &2)), Ok(Some(1)));
    assert_eq!(ready(fenced.replace("k", &2)), Ok(Some(1)));
    let seen = ready(fenced.get_versioned("k")).unwrap().unwrap();
    let version = ready(fenced.replace_if("k", seen.version, &3)).unwrap().unwrap();
    assert_eq!(ready(fenced.replace_if("k", seen.version, &4)), Ok(None));
    assert_eq!(ready(fenced.remove_if("k", seen.version)), Ok(false));
    assert_eq!(ready(fenced.remove_if("k", version)), Ok(true));
    assert_eq!(ready(fenced.put("k", &5)), Ok(None));
    assert_eq!(ready(fenced.remove("k")), Ok(Some(5)));
    assert_eq!(ready(fenced.put("k", &6)), Ok(None));
    assert_eq!(ready(fenced.clear()), Ok(()));
    assert_eq!(ready(map.len()), Ok(0));
    let longer = "k".repeat(limits::KEY_BYTES);
    assert_eq!(ready(fenced.put(&longer, &1)), Err(MapError::Refused(MapRefusal::KeyTooLong)));
}

#[test]
fn what_is_not_fenced_and_what_only_reads_takes_no_notice_of_fences() {
    let session = loopback().session();
    let map = map::<u8>(&session);
    let lock = lock(&session, "/lock");
    let (first, second) = (granted(&session, lock), granted(&session, lock));
    ready(map.fenced(&second).put("k", &1)).unwrap();
    assert_eq!(ready(map.put("k", &2)), Ok(Some(1)));
    let fenced = map.fenced(&first);
    assert_eq!(ready(fenced.get("k")), Ok(Some(2)));
    assert_eq!(ready(fenced.entries()), Ok(vec![("k".to_owned(), 2)]));
    assert!(ready(fenced.watch()).is_ok());
}

#[test]
fn tokens_of_different_locks_are_not_compared() {
    let session = loopback().session();
    let map = map::<u8>(&session);
    let locks = [lock(&session, "/a"), lock(&session, "/b")];
    let (of_a, of_b) = (granted(&session, locks[0]), granted(&session, locks[1]));
    assert_eq!(ready(map.fenced(&of_b).put("k", &1)), Ok(None));
    assert_eq!(ready(map.fenced(&of_a).put("k", &2)), Ok(Some(1)));
}

#[test]
fn nothing_is_taken_from_the_holder_of_a_lock_that_was_deleted_or_never_granted() {
    let session = loopback().session();
    let map = map::<u8>(&session);
    let lock = lock(&session, "/lock");
    let guard = granted(&session, lock);
    ready(map.fenced(&guard).put("k", &1)).unwrap();
    let ahead = Guard(FencingToken { lock, token: Index(guard.0.token.0 + 1_000) });
    let refused = MapError::Fenced(FenceRefusal::NotAToken);
    assert_eq!(ready(map.fenced(&ahead).put("k", &2)), Err(refused));

    assert_eq!(ready(management::delete(&session, "/lock", false)), Ok(Deleted::Gone));
    let refused = MapError::Fenced(FenceRefusal::NoSuchLock);
    assert!(refused.is_not_done());
    assert_eq!(ready(map.fenced(&guard).put("k", &2)), Err(refused.clone()));
    // A later lock at the same path is another.
    self::lock(&session, "/lock");
    assert_eq!(ready(map.fenced(&guard).put("k", &2)), Err(refused));
    assert_eq!(ready(map.get("k")), Ok(Some(1)));
}
