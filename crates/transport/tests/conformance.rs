//! The in-process network keeps the contract of transports.

use std::sync::Arc;

use atomix_testkit::conformance::transport;
use atomix_transport::MemoryNetwork;

#[tokio::test]
async fn memory_network() {
    transport::suite(Arc::new(MemoryNetwork::new()), "here", "nowhere").await;
}
