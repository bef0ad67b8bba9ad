//! What happened, so that a batch of worlds that never met the interesting cases fails.

macro_rules! met {
    ($($case:ident)*) => {
        /// How often each interesting case was met.
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct Met {
            $(pub(crate) $case: u64,)*
        }

        impl Met {
            pub(crate) fn add(&mut self, other: Met) {
                $(self.$case += other.$case;)*
            }

            /// The cases that were never met.
            pub(crate) fn missed(&self) -> Vec<&'static str> {
                let cases = [$((stringify!($case), self.$case),)*];
                cases.into_iter().filter(|(_, count)| *count == 0).map(|(case, _)| case).collect()
            }
        }
    };
}

met! {
    answered_from_table entries_lost gaps_before_the_log gaps_at_apply refused skipped refused_but_done expired resent
    window_full unknown suspended restarts redirected_reads late_reads closed
    events events_resent events_deduplicated acknowledgements answers_ahead folded held given_up
}
