//! What the gateway knows about the OpenAI bodies of chat, completions and embeddings.

pub mod answer;
pub mod canonical;
pub mod chunks;
pub mod compose;
pub mod convert;
pub mod delta;
pub(crate) mod escapes;
pub mod joined;
pub mod logprobs;
pub mod observe;
pub mod rewrite;
pub mod scan;
pub mod switch;
pub(crate) mod template;
pub mod think;
pub mod thoughts;
mod usage;
pub mod wish;

/// Which OpenAI endpoint a call belongs to: it decides the checks, not the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/responses` of an upstream that has it.
    Responses,
    /// `GET /v1/models` of an upstream: any JSON object is an answer.
    Models,
}
