//! The client's side of the handshake (I5): nothing else is parsed before it was accepted.

use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::{Hello, MAGIC, RefusalReason, Role, VERSIONS};
use atomix_protocol::{BootNonce, ClusterId, GroupId};

/// What the first frame of a server means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// A server of the cluster meant, or of this one if none is meant yet.
    Accepted(Option<ClusterId>),
    /// A server of another cluster.
    Foreign,
    /// Not to be talked to: a stranger, another version, a server that has no cluster any more.
    Rejected,
}

/// The first frame to a server. `nonce` tells this client's process from others.
pub(super) fn hello(cluster: Option<ClusterId>, nonce: u64) -> Frame {
    Frame::Hello(Hello::of_client(cluster, BootNonce(nonce)))
}

/// Judges a server's first frame. `cluster` is the one meant, once known.
pub(super) fn judge(frame: &Frame, cluster: Option<ClusterId>) -> Greeting {
    match frame {
        Frame::Hello(hello) => judge_hello(hello, cluster),
        // A server can only know that we are foreign once we said which cluster is meant.
        Frame::Refusal(refusal) if refusal.reason == RefusalReason::ForeignCluster && cluster.is_some() => {
            Greeting::Foreign
        }
        _ => Greeting::Rejected,
    }
}

fn judge_hello(hello: &Hello, cluster: Option<ClusterId>) -> Greeting {
    let versions_overlap = hello.versions.0 <= VERSIONS.1 && VERSIONS.0 <= hello.versions.1;
    if hello.magic != MAGIC
        || !versions_overlap
        || hello.role != Role::Server
        || hello.group != GroupId::DEFAULT
    {
        return Greeting::Rejected;
    }
    match (cluster, hello.cluster) {
        (Some(meant), Some(found)) if meant != found => Greeting::Foreign,
        (Some(_), None) => Greeting::Rejected,
        (_, found) => Greeting::Accepted(found),
    }
}

#[cfg(test)]
mod tests {
    use atomix_protocol::handshake::Refusal;

    use super::*;

    const OURS: ClusterId = ClusterId(1);
    const THEIRS: ClusterId = ClusterId(2);

    fn check(expected: Greeting, meant: Option<ClusterId>, change: impl FnOnce(&mut Hello)) {
        let Frame::Hello(mut hello) = hello(Some(OURS), 1) else { panic!("a hello") };
        hello.role = Role::Server;
        change(&mut hello);
        assert_eq!(
            judge(&Frame::Hello(hello.clone()), meant),
            expected,
            "{hello:?} while {meant:?} is meant"
        );
    }

    #[test]
    fn i5_the_first_frame_is_judged() {
        check(Greeting::Accepted(Some(OURS)), Some(OURS), |_| ());
        check(Greeting::Accepted(Some(OURS)), None, |_| ());
        check(Greeting::Accepted(None), None, |hello| hello.cluster = None);
        check(Greeting::Rejected, Some(OURS), |hello| hello.cluster = None);
        check(Greeting::Foreign, Some(THEIRS), |_| ());
        check(Greeting::Rejected, Some(THEIRS), |hello| hello.magic = 0);
        check(Greeting::Rejected, None, |hello| hello.role = Role::Peer);
        check(Greeting::Rejected, None, |hello| hello.group = GroupId(1));
        check(Greeting::Rejected, None, |hello| hello.versions = (VERSIONS.1 + 1, VERSIONS.1 + 2));
        check(Greeting::Accepted(Some(OURS)), None, |hello| hello.versions = (0, u16::MAX));
    }

    #[test]
    fn i5_refusals_and_strangers() {
        let refusal = |reason| Frame::Refusal(Refusal { reason, detail: String::new() });
        let foreign = refusal(RefusalReason::ForeignCluster);
        assert_eq!(judge(&foreign, Some(OURS)), Greeting::Foreign);
        assert_eq!(judge(&foreign, None), Greeting::Rejected);
        assert_eq!(judge(&refusal(RefusalReason::Busy), Some(OURS)), Greeting::Rejected);
        assert_eq!(judge(&Frame::Ping(1), None), Greeting::Rejected);
    }
}
