//! Futures that are dropped before they are done: nothing is left of them.

use super::slow::Slow;
use super::*;

type Map = DistributedMap<String, String>;
type Job = std::pin::Pin<Box<dyn Future<Output = ()>>>;
type Start<'a> = Box<dyn Fn() -> Job + 'a>;

/// Every method that waits, and what comes of it.
fn jobs(map: &Map) -> Vec<(&'static str, Start<'_>)> {
    macro_rules! jobs {
        ($($name:literal: $future:expr),* $(,)?) => {
            vec![$(($name, Box::new(move || -> Job {
                let future = $future;
                Box::pin(async move { let _ = future.await; })
            }) as Start<'_>)),*]
        };
    }
    let (version, value) = (serde_version(1), "v");
    jobs! {
        "put": map.put("k", value),
        "put_if_absent": map.put_if_absent("k", value),
        "replace": map.replace("k", value),
        "replace_if": map.replace_if("k", version, value),
        "remove": map.remove("k"),
        "remove_if": map.remove_if("k", version),
        "clear": map.clear(),
        "get": map.get("k"),
        "get_or_default": map.get_or_default("k", String::new()),
        "get_versioned": map.get_versioned("k"),
        "contains_key": map.contains_key("k"),
        "len": map.len(),
        "is_empty": map.is_empty(),
        "entries": map.entries(),
        "watch": map.watch(),
        "watch_key": map.watch_key("k"),
        "what is there, and a change": {
            let (watch, map) = (map.watch(), map.clone());
            async move {
                let mut stream = watch.await.unwrap().current_first();
                let shown = (stream.next().await, stream.next().await);
                let changed = (map.put("k", value).await, stream.next().await);
                assert!(shown.0.is_ok() && shown.1.is_ok() && changed.0.is_ok() && changed.1.is_ok());
            }
        },
        "an entry of one key, and a change": {
            let (watch, map) = (map.watch_key("large"), map.clone());
            async move {
                let mut stream = watch.await.unwrap().current_first();
                let shown = stream.next().await;
                let changed = (map.put("large", value).await, stream.next().await);
                assert!(shown.is_ok() && changed.0.is_ok() && changed.1.is_ok());
            }
        },
    }
}

/// Lets a future come as far as `arrivals` let it, drops it, and looks at what is left. Returns whether it was done by then.
fn drop_after(name: usize, arrivals: usize, late_commands: bool) -> bool {
    let loopback = loopback();
    // More than a page.
    let writer = map::<String>(&loopback.session());
    for key in ["large", "larger"] {
        ready(writer.put(key, &"v".repeat(300 << 10))).unwrap();
    }
    let slow = Slow::new(&loopback, late_commands);
    let map: Map = slow.ready(DistributedMap::open(&slow.session(), "/map")).unwrap();
    let kept = slow.ready(map.watch_key("kept")).unwrap();
    let jobs = jobs(&map);
    let (name, job) = &jobs[name];
    let mut job = job();
    let mut cx = Context::from_waker(Waker::noop());
    let mut done = false;
    for _ in 0..arrivals {
        done = done || job.as_mut().poll(&mut cx).is_ready();
        slow.arrive();
    }
    drop(job);
    slow.arrive_all();
    assert_eq!(watches(&loopback).len(), 1, "{name}, dropped after {arrivals} arrivals");
    drop(kept);
    slow.arrive_all();
    assert_eq!(watches(&loopback).len(), 0);
    done
}

#[test]
fn no_watch_is_left_of_a_future_dropped_at_any_await() {
    let session = loopback().session();
    let most = jobs(&map(&session)).len();
    for late_commands in [false, true] {
        for job in 0..most {
            let points = (0..20).take_while(|arrivals| !drop_after(job, *arrivals, late_commands)).count();
            assert!((2..20).contains(&points), "job {job} was dropped at {points} points");
        }
    }
}

#[test]
fn a_stream_is_taken_back_wherever_it_is_dropped() {
    let loopback = loopback();
    let session = loopback.session();
    let stream = ready(map::<u8>(&session).watch()).unwrap();
    assert_eq!(watches(&loopback).len(), 1);
    // A thread of its own, without a runtime.
    std::thread::scope(|scope| scope.spawn(|| drop(stream)).join().unwrap());
    assert_eq!(watches(&loopback).len(), 0);
}

#[test]
fn a_watch_that_was_refused_has_nothing_to_take_back() {
    let loopback = loopback();
    let session = loopback.session();
    let map = map::<u8>(&session);
    let before = loopback.applied().0;
    let refused = ready(map.watch_key(&"k".repeat(limits::KEY_BYTES))).unwrap_err();
    assert_eq!(refused, MapError::Refused(MapRefusal::KeyTooLong));
    assert_eq!(loopback.applied().0, before.next());
}
