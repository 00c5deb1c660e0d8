//! The handlers of the contract, over gRPC and, in `facade`, in JSON. Each handler reads its request
//! (`convert`), asks the ledger, and writes its answer; `status` alone turns errors into statuses.

mod account;
mod convert;
mod deadline;
mod deduct_stream;
mod deduction;
mod entries;
mod facade;
mod follow;
mod lab;
mod queue;
mod report;
mod status;
mod tally;
mod timeline;

pub use self::{
    account::AccountRpc,
    facade::{refused, router as facade},
    lab::{LabRpc, OwnService, OwnWay, Premises},
    queue::{Counter, QueueRpc},
    report::{Desk, ReportRpc},
    tally::Changes,
    timeline::Watch,
};
pub(crate) use self::{
    convert::{contender as contender_message, race as race_message, span as span_message},
    status::{MESSAGE_MOST, named, reason, status},
};

/// The handlers that both ports share: gRPC calls them directly, HTTP in another spelling.
#[derive(Clone)]
pub struct Handlers {
    /// Accounts.
    pub account: std::sync::Arc<AccountRpc>,
    /// The lab.
    pub lab: std::sync::Arc<LabRpc>,
    /// The queue.
    pub queue: std::sync::Arc<QueueRpc>,
    /// Reports.
    pub report: std::sync::Arc<ReportRpc>,
    /// Who may call what.
    pub access: crate::access::Access,
    /// How much is taken on.
    pub limits: std::sync::Arc<crate::limit::Limits>,
    /// The longest that a call may go on.
    pub max_deadline: std::time::Duration,
    /// What begins the spans of calls.
    pub tracer: zbl_trace::Tracer,
    /// The timeline.
    pub timeline: std::sync::Arc<crate::timeline::Timeline>,
}
