//! Connect, close.

use std::fmt;
use std::sync::Arc;

use atomix_protocol::{ClientId, SessionId, SessionKey};
use atomix_session::core::{Core, Options};
use atomix_session::{Session, SessionState};
use atomix_transport::{LinkLimits, Links, Transport};
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::clock::now;
use crate::driver::Driver;
use crate::session::{ClientSession, Shared};
use crate::{ClientError, ClientOptions};

/// A client with an open session. Clones share it; the session is closed when the last clone and the last resource that uses it are
/// gone, or by [`Client::close`].
#[derive(Clone)]
pub struct Client {
    session: Arc<ClientSession>,
}

impl Client {
    /// Opens a session. Needs a tokio runtime with time enabled, which drives it from then on. If the future is dropped, or fails,
    /// a session that was asked for is closed in the background.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if no server that knows a leader is reached within
    /// [`ClientOptions::connect_timeout`].
    pub async fn connect(options: ClientOptions, transport: Arc<dyn Transport>) -> Result<Self, ClientError> {
        let runtime = Handle::try_current().map_err(|error| ClientError::Settings(error.to_string()))?;
        let core = Core::new(draw(&options)?, draw_u64()?, now());
        let shared = Arc::new(Shared::new(core, runtime, options.operation_timeout));
        let limits = LinkLimits { connect_timeout: options.attempt_timeout, ..LinkLimits::default() };
        let driver = Driver::new(shared.clone(), Links::new(transport, limits));
        let attempt = Attempt { shared: Some(shared.clone()) };
        tokio::spawn(driver.run());
        let (mut opened, mut states) = (shared.opened.subscribe(), shared.states.subscribe());
        let opening = async {
            tokio::select! {
                opened = opened.wait_for(Option::is_some) => opened.ok().and_then(|session| *session),
                _ = states.wait_for(|state| state.is_final()) => None,
            }
        };
        if let Ok(Some(id)) = timeout(options.connect_timeout, opening).await {
            attempt.succeeded();
            return Ok(Client { session: Arc::new(ClientSession { id, shared }) });
        }
        let reason = shared.inner.lock().trouble.clone();
        Err(ClientError::Unreachable { tried: options.servers, reason })
    }

    /// The session, for resource handles.
    #[must_use]
    pub fn session(&self) -> Arc<dyn Session> {
        self.session.clone()
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.session.id
    }

    /// How many commands were sent more than once.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.session.shared.inner.lock().core.retries()
    }

    /// Closes the session for all clones, once everything submitted is answered. Commands submitted from now on are not done.
    /// If the cluster makes no progress for a session timeout, the wait ends, and silence ends the session. Once polled, dropping the
    /// future does not call it off.
    ///
    /// # Errors
    /// If the session had ended before.
    pub async fn close(&self) -> Result<(), ClientError> {
        let mut states = self.session.shared.states.subscribe();
        self.session.shared.close();
        match states.wait_for(|state| state.is_final()).await.map(|state| *state) {
            Ok(SessionState::Closed) => Ok(()),
            _ => Err(ClientError::SessionEnded),
        }
    }
}

/// An attempt to connect. Given up, it leaves nothing behind: if a session was asked for, the driver goes on until that is closed, or
/// would have been ended for silence.
struct Attempt {
    shared: Option<Arc<Shared>>,
}

impl Attempt {
    fn succeeded(mut self) {
        self.shared = None;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.close();
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("session", &self.session).finish_non_exhaustive()
    }
}

fn draw(options: &ClientOptions) -> Result<Options, ClientError> {
    if options.servers.is_empty() {
        return Err(ClientError::Settings("no server address was given".into()));
    }
    let drawn =
        || -> Result<u128, ClientError> { Ok(u128::from(draw_u64()?) << 64 | u128::from(draw_u64()?)) };
    Ok(Options {
        client: match options.client {
            Some(client) => client,
            None => ClientId(drawn()?),
        },
        key: SessionKey(drawn()?),
        attempt: draw_u64()?,
        servers: options.servers.clone(),
        session_timeout: options.session_timeout,
        connect_timeout: options.attempt_timeout,
        handshake_timeout: options.handshake_timeout,
        window: options.window,
        reserve: options.reserve,
        command_bytes: options.command_bytes,
        clock_drift: options.clock_drift,
        read_from: options.read_from.clone(),
    })
}

fn draw_u64() -> Result<u64, ClientError> {
    SysRng
        .try_next_u64()
        .map_err(|error| ClientError::Settings(format!("the system gives no randomness: {error}")))
}
