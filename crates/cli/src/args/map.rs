//! `atomix map`.

use clap::{Args, Subcommand};

use super::Cluster;

/// One operation on a map.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "\
Examples:
  atomix map put /users ada \"Ada Lovelace\" --cluster 127.0.0.1:8701
  atomix map get /users ada --cluster 127.0.0.1:8701
  atomix map list /users --cluster 127.0.0.1:8701
  atomix map watch /users --cluster 127.0.0.1:8701

Keys and values are strings. `get` and `remove` of a key that is not there exit with 1.")]
pub enum Map {
    /// Sets a key's value; prints the value that it replaces, if any
    #[command(after_help = "\
Example:
  atomix map put /users ada \"Ada Lovelace\" --cluster 127.0.0.1:8701

The map is created if need be. If the outcome is not known in time, exits with 4: it may have been done.")]
    Put {
        /// The map
        path: String,
        /// The key
        key: String,
        /// Its new value
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// The cluster
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Prints a key's value
    #[command(after_help = "\
Example:
  atomix map get /users ada --cluster 127.0.0.1:8701

Sees every put that was acknowledged before. Exits with 1 if the key is not there.")]
    Get {
        /// The map
        path: String,
        /// The key
        key: String,
        /// The cluster
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Removes a key; prints the value that it had
    #[command(after_help = "\
Example:
  atomix map remove /users ada --cluster 127.0.0.1:8701

Exits with 1 if the key was not there.")]
    Remove {
        /// The map
        path: String,
        /// The key
        key: String,
        /// The cluster
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Prints all keys with their values, a tab between them
    #[command(after_help = "\
Example:
  atomix map list /users --cluster 127.0.0.1:8701")]
    List {
        /// The map
        path: String,
        /// The cluster
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Prints every change from now on, one a line
    Watch(MapWatch),
}

/// What to watch.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  atomix map watch /users --cluster 127.0.0.1:8701
  atomix map watch /users ada --current --json --cluster 127.0.0.1:8701

The map is created if need be. A line is the kind of the change (added, updated, removed, cleared), the key, its old and its new
value, and the version, with tabs between them, nothing where there is nothing, and \\t, \\n, \\r and \\\\ for such characters in keys
and values. --current begins with what is there, as lines of the kind current. Standard error says when the watch is on.

No change is left out or told twice, whichever server is lost. Ends with SIGINT; exits with 1 if it can't go on: the map was
deleted, the session has ended, or changes came faster than they could be printed.")]
pub struct MapWatch {
    /// The map
    pub path: String,
    /// Only this key
    pub key: Option<String>,
    /// Begin with what is there
    #[arg(long)]
    pub current: bool,
    /// For programs: one object a line
    #[arg(long)]
    pub json: bool,
    /// The cluster
    #[command(flatten)]
    pub cluster: Cluster,
}
