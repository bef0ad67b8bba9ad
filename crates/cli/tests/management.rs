//! `atomix exists` and `atomix delete`.

use atomix_cli::cluster::Cluster;

use crate::run::{WAIT, executable, run};

#[tokio::test]
async fn a_resource_is_there_until_it_is_deleted() {
    let cluster = Cluster::start(&executable(), 1, &[]).expect("a server");
    cluster.leader(WAIT).await.expect("a leader");
    let all = cluster.addresses().join(",");
    run(&["exists", "/m", "--cluster", &all]).await.check(1, &["nothing at /m"]);
    run(&["delete", "/m", "--cluster", &all]).await.check(1, &["nothing at /m"]);
    run(&["delete", "/m", "--force", "--cluster", &all]).await.check(1, &["nothing at /m"]);
    for options in [&[][..], &["--force"]] {
        run(&["map", "put", "/m", "k", "v", "--cluster", &all]).await.check(0, &[]);
        let exists = run(&["exists", "/m", "--cluster", &all]).await;
        exists.check(0, &[]);
        assert_eq!(exists.out, "map\n");
        run(&[&["delete", "/m", "--cluster", &all], options].concat()).await.check(0, &[]);
        run(&["map", "get", "/m", "k", "--cluster", &all]).await.check(1, &["no key"]);
        run(&["delete", "/m", "--cluster", &all]).await.check(0, &[]);
    }
    for arguments in [["exists", "users"], ["delete", "users"]] {
        run(&[&arguments[..], &["--cluster", &all]].concat()).await.check(1, &["not a path", "users"]);
    }
    cluster.stop().await.expect("stopped");
}
