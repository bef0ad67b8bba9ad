//! How clients step.

use atomix_protocol::LinkId;
use atomix_session::core::{Input, Output};

use super::checker::{Check, hold};
use super::contender::Guard;
use super::coverage::Mark;
use super::faults::Class;
use super::model;
use super::network::Told;
use super::server::address_of;
use super::settings::{MILLISECOND, Time};
use super::world::{Event, World};

const SPINS: u32 = 2_000;

impl World {
    /// A client's process comes up, or opens another session.
    pub(super) fn start_client(&mut self, number: usize) -> Check {
        let servers = (0..self.servers.len()).map(address_of).collect();
        let client = &mut self.clients[number];
        let local = client.clock.read(self.now);
        client.start(local, &self.settings, servers);
        let epoch = client.epoch;
        let think = client.think(&self.settings);
        self.after(think, Event::Think { client: number, epoch });
        self.drain_client(number)
    }

    /// A client's process comes up later, if nothing else happens to it.
    pub(super) fn start_client_after(&mut self, wait: Time, number: usize) {
        let epoch = self.clients[number].epoch;
        self.after(wait, Event::StartClient { client: number, epoch });
    }

    /// A client's process is gone.
    pub(super) fn stop_client(&mut self, number: usize) {
        let node = self.servers.len() + number;
        self.network.gone(self.now, node, false);
        self.settle_network();
        self.clients[number].stop();
    }

    pub(super) fn tell_client(&mut self, number: usize, told: Told) -> Check {
        let input = match told {
            Told::Dialed(link) => Input::Dialed(link),
            Told::Closed(link) => Input::Closed(link),
            Told::Frame(link, frame) => {
                self.note(frame.len() as u64);
                Input::Frame(link, frame)
            }
            Told::Accepted(_) => return Ok(()),
        };
        let client = &mut self.clients[number];
        client.inbox.push_back(input);
        if client.paused > 0 { Ok(()) } else { self.step_client(number) }
    }

    pub(super) fn step_client(&mut self, number: usize) -> Check {
        let client = &mut self.clients[number];
        let local = client.clock.read(self.now);
        let Some(core) = client.core.as_mut() else { return Ok(()) };
        while let Some(input) = client.inbox.pop_front() {
            core.step(local, input);
        }
        self.drain_client(number)
    }

    /// Carries out what the core asks for, and checks what it tells.
    pub(super) fn drain_client(&mut self, number: usize) -> Check {
        let client = &mut self.clients[number];
        let local = client.clock.read(self.now);
        let Some(core) = client.core.as_mut() else { return Ok(()) };
        let outputs = core.drain(local);
        self.note(outputs.len() as u64);
        for output in outputs {
            self.trace.event(self.now, || format!("client {number} {}", brief(&output)));
            self.carry_out_client(number, output)?;
        }
        self.settle_network();
        self.set_client_timer(number);
        let client = &mut self.clients[number];
        if let Some(core) = &client.core {
            let deduplicated = core.events_deduplicated();
            self.coverage.mark(Mark::EventDeduplicated, deduplicated - client.deduplicated);
            client.deduplicated = deduplicated;
        }
        self.clients[number].check_promises(self.now, &self.model)
    }

    fn carry_out_client(&mut self, number: usize, output: Output) -> Check {
        let node = self.servers.len() + number;
        match output {
            Output::Dial(link, address) => {
                self.dial(node, link, &address);
                return Ok(());
            }
            Output::Send(link, frame) => {
                let kind = Self::kind_of(&frame);
                self.send_frame(node, link, frame);
                return self.after_client_frame(number, link, kind);
            }
            Output::Close(link) => {
                self.close_link(node, link);
                return Ok(());
            }
            _ => {}
        }
        let now = self.clients[number].clock.read(self.now);
        let (client, mut shared) = self.client_and_shared(number);
        match output {
            Output::Completed(sequence, result) => client.completed(now, sequence, &result, &mut shared),
            Output::Event { instance, index, body } => {
                client.event(now, model::Told { index, instance, body }, &mut shared)
            }
            Output::Answered(query, result) => client.answered(query, &result, &mut shared),
            Output::Opened(session) => {
                self.trace.change(self.now, || format!("client {number} opened session {session}"));
                let (client, mut shared) = self.client_and_shared(number);
                client.opened(session, &mut shared)
            }
            Output::State(state) => {
                self.trace.change(self.now, || format!("client {number} {state:?}"));
                let (client, mut shared) = self.client_and_shared(number);
                client.state(state, &mut shared)
            }
            _ => Ok(()),
        }
    }

    fn close_link(&mut self, node: usize, link: LinkId) {
        self.network.close(self.now, node, link);
    }

    pub(super) fn set_client_timer(&mut self, number: usize) {
        let node = self.servers.len() + number;
        let now = self.now;
        let client = &mut self.clients[number];
        let (epoch, clock) = (client.epoch, client.clock);
        let Some(deadline) = client.core.as_ref().and_then(|core| core.next_deadline()) else { return };
        let due = clock.when(deadline).max(now + 1);
        if client.timer.is_none_or(|timer| timer > due) {
            client.timer = Some(due);
            self.schedule(due, Event::Timer { node, epoch });
        }
    }

    pub(super) fn on_client_timer(&mut self, number: usize, epoch: u32) -> Check {
        let now = self.now;
        let client = &mut self.clients[number];
        if client.epoch != epoch || client.timer != Some(now) {
            return Ok(());
        }
        client.timer = None;
        let local = client.clock.read(now);
        let Some(core) = client.core.as_mut().filter(|_| client.paused == 0) else { return Ok(()) };
        if core.next_deadline().is_none_or(|deadline| deadline > local) {
            self.set_client_timer(number);
            return Ok(());
        }
        core.step(local, Input::Tick);
        self.drain_client(number)?;
        let client = &mut self.clients[number];
        let again =
            client.core.as_ref().and_then(|core| core.next_deadline()).is_some_and(|due| due <= local);
        client.spins = if again { client.spins + 1 } else { 0 };
        let spins = client.spins;
        hold("spin", spins < SPINS, || format!("client {number}: its deadline stays due"))
    }

    /// The user does something, and will again.
    pub(super) fn on_think(&mut self, number: usize, epoch: u32) -> Check {
        let client = &mut self.clients[number];
        if client.epoch != epoch || client.core.is_none() || client.retired {
            return Ok(());
        }
        let wait = client.think(&self.settings);
        if client.paused > 0 {
            self.after(wait, Event::Think { client: number, epoch });
            return Ok(());
        }
        if client.is_over() {
            // One core is one session: the user opens another.
            self.stop_client(number);
            self.start_client_after(wait, number);
            return Ok(());
        }
        self.mishap(number)?;
        let client = &self.clients[number];
        if client.epoch != epoch {
            return Ok(());
        }
        let local = client.clock.read(self.now);
        let (client, mut shared) = self.client_and_shared(number);
        let lagged = shared.coverage.marks(Mark::StreamLagged);
        client.act(local, &mut shared)?;
        for _ in lagged..self.coverage.marks(Mark::StreamLagged) {
            self.coverage.fault(Class::S18);
        }
        let client = &mut self.clients[number];
        let writes = std::mem::take(&mut client.writes);
        self.after(wait, Event::Think { client: number, epoch });
        for guard in writes {
            self.write_later(guard);
        }
        self.drain_client(number)
    }

    /// A holder writes to what its lock guards. Some of that is under way for long.
    fn write_later(&mut self, guard: Guard) {
        let random = &mut self.randoms.guarded;
        let wait = if random.chance(0.7) {
            random.exponential(5 * MILLISECOND)
        } else {
            random.below(2 * self.settings.session_timeout.1)
        };
        self.after(wait, Event::Write(guard));
    }

    /// A paused client goes on.
    pub(super) fn wake_client(&mut self, number: usize) -> Check {
        let overslept = self.clients[number].has_overslept(&self.model);
        self.coverage.mark(Mark::HolderOverslept, u64::from(overslept));
        self.step_client(number)
    }
}

fn brief(output: &Output) -> String {
    match output {
        Output::Send(link, frame) => format!("Send({link}, kind {:?}, {}B)", frame.first(), frame.len()),
        other => format!("{other:?}"),
    }
}
