//! A look at the locks and the map as a server has them, past all clients: I12, and that nobody leaves anything behind.

use std::collections::BTreeMap;

use atomix_collections::map::op::{Entry, Scope};
use atomix_engine::Engine;
use atomix_protocol::{ClusterTime, codec};
use atomix_resource::Caller;
use atomix_session::QueryContext;
use bytes::Bytes;

use super::checker::{Check, hold, id_of};
use super::model::Model;
use super::operation::{Place, Query};
use super::versions::Version;

/// The name of the part of a snapshot that holds one resource.
const RESOURCE: &str = "resource";

/// I12: every lock has the holder, the token and the queue that it must have behind that index.
pub(super) fn locks(server: usize, engine: &Engine, version: Version, model: &Model) -> Check {
    let (applied, _) = engine.table().applied();
    let (kind, number) = (Place::Lock(0).kind(), Query::Inspect.number());
    // A binary that lacks what may be used stops when it is asked (M2).
    if version.level(kind) < number && engine.table().levels().of(kind) >= number {
        return Ok(());
    }
    for (resource, (session, instance)) in model.visitors(applied) {
        let levels = engine.table().levels();
        let cx = QueryContext { index: applied, time: ClusterTime::default(), session, levels };
        let found = engine.machine().query(&cx, &Query::Inspect.encode(instance));
        let expected = model.answer(instance, &Query::Inspect, applied);
        hold("I12", found == expected, || {
            format!(
                "lock {} at {applied} is {found:?} on server {}, must be {expected:?}",
                resource.0,
                id_of(server)
            )
        })?;
    }
    Ok(())
}

/// How many watches the maps of a server have.
pub(super) fn watches(engine: &Engine) -> usize {
    let mut bytes = Vec::new();
    let written = engine.machine().snapshot().write_to(&mut bytes);
    assert!(written.is_ok(), "memory can always be written");
    let mut rest = Bytes::from(bytes);
    let mut watches = 0;
    while let Ok(part) = codec::take_part(&mut rest) {
        let Ok(((name, _), body)) = codec::take_from_bytes::<(String, u16)>(&part) else { continue };
        if name == RESOURCE
            && let Ok(((_, _, kind), state)) = codec::take_from_bytes::<(u64, String, String)>(&body)
            && kind == "map"
            && let Ok(((_, map), _)) = codec::take_from_bytes::<MapImage>(&state)
        {
            watches += map.len();
        }
    }
    watches
}

/// What a map keeps in a snapshot, as far as the end of its watches.
type MapImage = (BTreeMap<Bytes, Entry>, BTreeMap<Caller, Scope>);
