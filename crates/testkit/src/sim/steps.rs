//! How servers step: inputs in, outputs carried out, and every invariant looked at.

use atomix_engine::{Input as EngineInput, Notice, Output, StopReason};
use atomix_protocol::client::EndReason;
use atomix_protocol::codec::Frame;
use atomix_protocol::{Address, EntryKind, LinkId};
use bytes::Bytes;

use super::Profile;
use super::bare::Emitted;
use super::checker::{Broken, Check, hold, id_of};
use super::coverage::Mark;
use super::disk::Job;
use super::faults::Class;
use super::network::{Node, Reach, Told};
use super::random::Random;
use super::server::{Input, Machine, server_at};
use super::settings::MILLISECOND;
use super::storage::{Effect, Task};
use super::versions::attempt;
use super::world::{Event, World};

/// Frames of these kinds are read by the checkers on their way: replies that promise something durable.
const PRE_VOTE: u8 = 16;
const VOTE_REPLY: u8 = 19;
const APPEND: u8 = 20;
const APPEND_REPLY: u8 = 21;
/// Events to a client.
const EVENT: u8 = 56;
const SPINS: u32 = 2_000;

impl World {
    pub(super) fn tell_server(&mut self, server: Node, told: Told) -> Check {
        let input = match told {
            Told::Dialed(link) => EngineInput::Dialed(link),
            Told::Closed(link) => EngineInput::Closed(link),
            Told::Frame(link, frame) => {
                self.note(frame.len() as u64);
                self.check_told_stranger(server, &frame)?;
                EngineInput::Frame(link, frame)
            }
            Told::Accepted(connection) => {
                let accepted =
                    self.servers[server].process.as_mut().and_then(|process| process.machine.accept());
                let Some(link) = accepted else { return Ok(()) };
                self.network.accepted(connection, link);
                EngineInput::Accepted(link)
            }
        };
        self.give(server, Input::Common(input))
    }

    /// Something reaches a server: at once, or when it looks.
    pub(super) fn give(&mut self, server: Node, input: Input) -> Check {
        let batch = self.settings.batch;
        let at = &mut self.servers[server];
        let Some(process) = at.process.as_mut() else { return Ok(()) };
        at.inbox.push_back(input);
        if at.paused > 0 || process.wake {
            return Ok(());
        }
        if batch == 0 {
            return self.step(server);
        }
        process.wake = true;
        let epoch = at.epoch;
        let wait = self.randoms.workload.below(batch);
        self.after(wait, Event::Wake { server, epoch });
        Ok(())
    }

    pub(super) fn on_wake(&mut self, server: Node, epoch: u32) -> Check {
        let at = &mut self.servers[server];
        if at.epoch != epoch {
            return Ok(());
        }
        if let Some(process) = at.process.as_mut() {
            process.wake = false;
        }
        if at.is_running() { self.step(server) } else { Ok(()) }
    }

    /// Takes everything in the inbox in one batch.
    pub(super) fn step(&mut self, server: Node) -> Check {
        self.watch_rival(server);
        let at = &mut self.servers[server];
        let local = at.clock.read(self.now);
        let Some(process) = at.process.as_mut() else { return Ok(()) };
        let (machine, inbox) = (&mut process.machine, &mut at.inbox);
        let stepped = attempt(at.version, || {
            while let Some(input) = inbox.pop_front() {
                machine.step(local, input);
            }
            machine.drain(local)
        });
        let emitted = match stepped {
            Ok(emitted) => emitted,
            Err(panic) => return self.panicked(server, panic),
        };
        self.note(server as u64 + emitted.len() as u64 * 8);
        if self.panics(server) {
            return Ok(());
        }
        if self.stands_still(&emitted) {
            return self.stand_still(server, emitted);
        }
        self.finish_step(server, emitted)
    }

    pub(super) fn finish_step(&mut self, server: Node, emitted: Vec<Emitted>) -> Check {
        for one in emitted {
            self.carry_out(server, one)?;
        }
        self.settle_network();
        self.observe(server)?;
        self.check_rival(server)?;
        let local = self.servers[server].clock.read(self.now);
        self.check_spin(server, local)?;
        self.set_server_timer(server);
        Ok(())
    }

    fn carry_out(&mut self, server: Node, emitted: Emitted) -> Check {
        self.trace.event(self.now, || format!("server {} {emitted:?}", id_of(server)));
        match emitted {
            Emitted::Common(output) => self.carry_out_common(server, output),
            Emitted::Message(to, message) => self.send_message(server, to, message),
            Emitted::Acknowledged(proposal, id) => {
                // The commit is looked at first: it is what makes the acknowledgement true.
                self.observe(server)?;
                self.coverage.operations += 1;
                self.proposals.acknowledged(proposal, id, &self.checker.ledger)
            }
            Emitted::ReadsReady(reads, index, not_after) => {
                let at = &mut self.servers[server];
                let local = at.clock.read(self.now);
                if not_after.is_some_and(|not_after| local > not_after) {
                    if let Some(Machine::Core(bare)) = at.process.as_mut().map(|process| &mut process.machine)
                    {
                        reads.into_iter().for_each(|read| bare.read_again(local, read));
                    }
                    return Ok(());
                }
                for read in reads {
                    self.coverage.reads += u64::from(self.proposals.ready(read, index)?);
                }
                Ok(())
            }
        }
    }

    fn carry_out_common(&mut self, server: Node, output: Output) -> Check {
        match output {
            Output::Dial(link, address) => {
                self.dial(server, link, &address);
                Ok(())
            }
            Output::Send(link, frame) => self.send(server, link, frame),
            Output::Answer { link, frame, not_after, read } => {
                if self.servers[server].clock.read(self.now) <= not_after {
                    self.send(server, link, frame)
                } else {
                    self.late(server, Input::Common(EngineInput::TooLate(read)));
                    Ok(())
                }
            }
            Output::Close(link) => {
                self.network.close(self.now, server, link);
                Ok(())
            }
            Output::Notice(notice) => {
                self.on_notice(server, &notice);
                Ok(())
            }
            Output::Stop(reason) if self.is_stranger(server) => {
                self.stranger_stops(server, &reason.to_string());
                Ok(())
            }
            Output::Stop(StopReason::Damaged(_)) if self.decides_alone_in_vain(server) => {
                self.stops_for_damage(server);
                Ok(())
            }
            Output::Stop(reason) => {
                self.unreadable(server, "stop", format!("server {} stops: {reason}", id_of(server)))
            }
            other => self.start_task(server, other),
        }
    }

    pub(super) fn dial(&mut self, node: Node, link: LinkId, address: &Address) {
        if let Some(to) = server_at(address) {
            let to = if node < self.servers.len() && self.is_deceived(to) { self.deceive() } else { to };
            self.network.dial(self.now, node, link, to);
        }
    }

    fn send(&mut self, server: Node, link: LinkId, frame: Bytes) -> Check {
        let is_read = match frame.first() {
            Some(&(VOTE_REPLY | APPEND_REPLY)) => true,
            Some(&(PRE_VOTE..VOTE_REPLY)) => self.checker.abstains(server),
            Some(&APPEND) => self.swarm.rots(),
            _ => false,
        };
        if is_read
            && !self.is_stranger(server)
            && let Ok(Frame::Peer(message)) = Frame::decode(&frame)
            && let Some(to) = self.network.other_end(server, link)
        {
            let to = self.servers.get(to).and_then(|to| to.id);
            self.checker.sent(server, to, &message)?;
        }
        if frame.first() == Some(&EVENT)
            && self.faults_on
            && self.swarm.duplicates > 0.0
            && self.randoms.message.chance(self.swarm.duplicates)
        {
            // A leader that does not know whether they arrived (E4).
            self.coverage.fault(Class::N2);
            self.send_frame(server, link, frame.clone());
        }
        self.check_frame_bounds(server, &frame)?;
        let event = frame.first() == Some(&EVENT);
        self.send_frame(server, link, frame);
        if event {
            self.after_event(server, link);
        }
        Ok(())
    }

    pub(super) fn send_frame(&mut self, node: Node, link: LinkId, frame: Bytes) {
        let other = self.network.other_end(node, link);
        let peer = other.and_then(|other| self.servers.get(other)).map_or(Reach::Up, |server| server.reach);
        self.network.send(self.now, node, link, frame, peer);
    }

    fn on_notice(&mut self, server: Node, notice: &Notice) {
        self.trace.change(self.now, || format!("server {} {notice:?}", id_of(server)));
        match notice {
            Notice::SnapshotInstalled(_) => self.installed(),
            Notice::Failed { told, .. } => self.coverage.mark(Mark::LastWord, u64::from(told.is_some())),
            Notice::Role { role, term, .. } => {
                self.note(term.0);
                if *role == atomix_raft::Role::Leader {
                    self.leads_now(server);
                    self.ask_early(server);
                    self.usurped();
                }
            }
            _ => {}
        }
    }

    fn start_task(&mut self, server: Node, output: Output) -> Check {
        self.check_silent(server, &output)?;
        let task = Task::from_output(output).map_err(|other| Broken {
            name: "stop",
            detail: format!("server {} asks for {other}, which nobody knows", id_of(server)),
        })?;
        if let Task::Write(token, batch) = &task
            && !self.is_stranger(server)
        {
            self.checker.issued(server, *token, batch)?;
            self.take_checker_marks();
            self.may_usurp(server, batch);
        }
        let Some(process) = self.servers[server].process.as_mut() else { return Ok(()) };
        let lane = process.threads.push(task);
        self.start_lane(server, lane)
    }

    pub(super) fn start_lane(&mut self, server: Node, lane: usize) -> Check {
        if self.servers[server].ills.broken {
            return Ok(());
        }
        self.begin_task(server, lane);
        self.may_stray(server, lane);
        self.may_crumble(server, lane);
        let at = &mut self.servers[server];
        let epoch = at.epoch;
        let Some(process) = at.process.as_mut() else { return Ok(()) };
        let started = process.threads.start(lane);
        self.look_for_stray(server);
        self.look_for_room(server);
        let started = match started {
            Ok(started) => started,
            Err(error) => return self.task_fails(server, lane, &error),
        };
        let at = &mut self.servers[server];
        let Some(process) = at.process.as_mut() else { return Ok(()) };
        if let Some(job) = started {
            let (least, mean) = self.settings.disk_latency;
            let wait = (least + self.randoms.storage.exponential(mean)).saturating_mul(at.slower);
            let wait = wait.saturating_mul(at.ills.lanes[lane]);
            if let Some(armed) = at.armed.take_if(|armed| process.threads.is_at(lane, armed.moment)) {
                let early = Random::of(armed.seed).below(wait + 1);
                self.after(early, Event::PowerCut { server, epoch, armed });
            }
            self.after(wait, Event::Lane { server, epoch, lane, job });
        }
        Ok(())
    }

    pub(super) fn on_lane(&mut self, server: Node, epoch: u32, lane: usize, job: Job) -> Check {
        let stranger = self.is_stranger(server);
        let at = &mut self.servers[server];
        if at.epoch != epoch {
            return Ok(());
        }
        if at.hung > 0 {
            return Ok(());
        }
        let Some(process) = at.process.as_mut() else { return Ok(()) };
        let Some(running) = process.threads.done(lane, job) else { return Ok(()) };
        match running.effect {
            _ if stranger => {}
            Effect::Written(token) => self.checker.written(server, token)?,
            Effect::Refused(token) => self.checker.refused(server, token),
            Effect::Published(last) => self.checker.published(server, last)?,
            Effect::None => {}
        }
        self.take_checker_marks();
        if !stranger {
            self.check_content(server, &running)?;
        }
        self.start_lane(server, lane)?;
        for report in running.reports {
            self.count_room(server, &report);
            self.give(server, Input::Common(report))?;
        }
        Ok(())
    }

    pub(super) fn set_server_timer(&mut self, server: Node) {
        let at = &mut self.servers[server];
        let epoch = at.epoch;
        let clock = at.clock;
        let Some(process) = at.process.as_mut() else { return };
        let Some(deadline) = process.machine.next_deadline() else { return };
        let due = clock.when(deadline).max(self.now + 1);
        if process.timer.is_none_or(|timer| timer > due) {
            process.timer = Some(due);
            self.schedule(due, Event::Timer { node: server, epoch });
        }
    }

    pub(super) fn on_server_timer(&mut self, server: Node, epoch: u32) -> Check {
        let now = self.now;
        let at = &mut self.servers[server];
        let paused = at.paused > 0;
        let local = at.clock.read(now);
        let Some(process) =
            at.process.as_mut().filter(|process| at.epoch == epoch && process.timer == Some(now))
        else {
            return Ok(());
        };
        process.timer = None;
        if paused {
            return Ok(());
        }
        let due = process.machine.next_deadline().is_some_and(|deadline| deadline <= local);
        if !due {
            self.set_server_timer(server);
            return Ok(());
        }
        self.give(server, Input::Common(EngineInput::Tick))
    }

    /// A deadline that is always due would keep a real server's processor busy.
    fn check_spin(&mut self, server: Node, local: atomix_protocol::LocalTime) -> Check {
        let Some(process) = self.servers[server].process.as_mut() else { return Ok(()) };
        let again = process.machine.next_deadline().is_some_and(|deadline| deadline <= local);
        process.spins = if again { process.spins + 1 } else { 0 };
        let spins = process.spins;
        let due = (
            process.machine.next_deadline(),
            process.machine.raft().and_then(atomix_raft::Raft::next_deadline),
        );
        hold("spin", spins < SPINS, || {
            format!("server {} at {local:?}: its deadline stays due: {due:?}", id_of(server))
        })
    }

    /// Looks at the server that stepped.
    fn observe(&mut self, server: Node) -> Check {
        let at = &self.servers[server];
        let Some(raft) = at.raft() else { return Ok(()) };
        // What had arrived before it went deaf still counts.
        let grace = 50 * MILLISECOND + self.settings.batch;
        if let Some(deaf) = self.deaf.get_mut(&server).filter(|deaf| self.now - deaf.0 < grace) {
            deaf.1 = raft.term().0;
        }
        self.checker.check_identity(server, raft)?;
        let seen = self.checker.observe(server, raft)?;
        let (id, receives) = (raft.server(), raft.is_installing());
        let at = &mut self.servers[server];
        let joined = at.id.replace(id).is_none() && at.joins;
        self.coverage.mark(Mark::Joined, u64::from(joined));
        let at = &mut self.servers[server];
        if receives && !std::mem::replace(&mut at.receives, receives) {
            self.receiving(server);
        } else {
            at.receives = receives;
        }
        self.take_checker_marks();
        self.extend_model()?;
        if let Some(applied) = seen {
            self.note(applied.0);
            self.compare_state(server, applied)?;
        }
        self.take_marks(server);
        self.check_server_bounds(server)
    }

    fn take_checker_marks(&mut self) {
        for mark in self.checker.take_marks() {
            self.coverage.mark(mark, 1);
        }
    }

    fn extend_model(&mut self) -> Check {
        while self.model.applied() < self.checker.ledger.last() {
            let next = self.model.applied().next();
            let Some(committed) = self.checker.ledger.at(next) else { break };
            self.coverage.committed += 1;
            self.coverage.mark(Mark::TwoVersions, u64::from(self.is_mixed()));
            let entry = committed.entry.clone();
            if entry.kind == EntryKind::Configuration {
                self.configured();
            }
            if self.profile == Profile::Core {
                self.model.skip(next);
                continue;
            }
            let happened = self.model.apply(&entry)?;
            if let Some((session, reason)) = happened.ended {
                self.trace.change(self.now, || format!("session {session} ended: {reason:?}"));
                self.coverage.mark(Mark::SessionExpired, u64::from(reason == EndReason::Expired));
            }
            if happened.ended.is_some() || happened.passed {
                for client in &self.clients {
                    client.check_promises(self.now, &self.model)?;
                }
            }
        }
        for mark in self.model.take_marks() {
            self.trace.change(self.now, || mark.as_str().into());
            self.coverage.mark(mark, 1);
        }
        Ok(())
    }
}
