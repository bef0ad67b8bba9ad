//! What the examples have in common.

/// An example over the loop-back session, with a free `lock` at hand.
macro_rules! example {
    ($lines:literal) => {
        concat!(
            "\n```\n",
            "# use std::time::Duration;\n",
            "# use atomix_coordination::{DistributedLock, Fence, FenceError, Lost, Token, register};\n",
            "# use atomix_testkit::loopback::Loopback;\n",
            "# #[tokio::main(flavor = \"current_thread\")] async fn main() -> Result<(), Box<dyn std::error::Error>> {\n",
            "# let loopback = Loopback::new(register(atomix_resource::Registry::new()));\n",
            "# let session = loopback.session();\n",
            "# let lock = DistributedLock::open(&session, \"/lock\").await?;",
            $lines,
            "# Ok(())\n# }\n```",
        )
    };
}
