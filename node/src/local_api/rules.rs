//! How traffic is shaped: `hydrant.v1.Rules`.

use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult};
use hydrant_contracts::rules::{self, Change, KeptRule, Rule, Signature};
use hydrant_contracts::{Error, proto};

use super::LocalApi;

impl proto::Rules for LocalApi {
    async fn list_rules(
        &self,
        context: RequestContext,
        _: ServiceRequest<'_, proto::ListRulesRequest>,
    ) -> ServiceResult<proto::ListRulesResponse> {
        let who = self.identify(&context)?;
        self.authority.operator(&who, "see the rules")?;
        let kept = self.rules.kept().await?;
        Response::ok(proto::ListRulesResponse {
            epoch: kept.epoch,
            rules: kept.rules.iter().map(kept_rule).collect(),
            ..Default::default()
        })
    }

    async fn apply_rules(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::ApplyRulesRequest>,
    ) -> ServiceResult<proto::ChangeRulesResponse> {
        let who = self.identify(&context)?;
        self.authority.operator(&who, "change the rules")?;
        let rules = rules::parse(request.toml).map_err(Error::from)?;
        let prune = request.prune;
        if request.dry_run {
            let nobody = self.signature("", "");
            let kept = self.rules.kept().await?;
            let (_, changes) = kept.apply(rules, prune, &nobody)?;
            return Response::ok(changed(kept.epoch, &changes));
        }
        let by = self.signature(request.author, request.reason);
        by.check()?;
        let apply = |kept: &rules::RuleSet| kept.apply(rules.clone(), prune, &by);
        let (epoch, changes) = self.rules.change(apply).await?;
        self.log(&by, epoch, &changes);
        Response::ok(changed(epoch, &changes))
    }

    async fn remove_rules(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::RemoveRulesRequest>,
    ) -> ServiceResult<proto::ChangeRulesResponse> {
        let who = self.identify(&context)?;
        self.authority.operator(&who, "change the rules")?;
        let by = self.signature(request.author, request.reason);
        by.check()?;
        let names = request.to_owned_message().names;
        let (epoch, changes) = self.rules.change(|kept| kept.remove(&names)).await?;
        self.log(&by, epoch, &changes);
        Response::ok(changed(epoch, &changes))
    }

    async fn served_rules(
        &self,
        context: RequestContext,
        _: ServiceRequest<'_, proto::ServedRulesRequest>,
    ) -> ServiceResult<proto::ServedRulesResponse> {
        self.identify(&context)?;
        Response::ok(proto::ServedRulesResponse {
            server: self.server.clone(),
            epoch: self.traffic.rules_epoch(),
            trouble: self
                .table
                .view()
                .rules
                .trouble
                .unwrap_or_default()
                .to_string(),
            ..Default::default()
        })
    }
}

impl LocalApi {
    fn signature(&self, author: &str, reason: &str) -> Signature {
        Signature {
            author: author.trim().into(),
            reason: reason.trim().into(),
            changed_unix_ms: self.clock.unix_ms(),
        }
    }

    /// A rule that is gone is kept nowhere: who took it away, and why, is on this line.
    fn log(&self, by: &Signature, epoch: u64, changes: &[Change]) {
        for change in changes {
            tracing::info!(
                epoch,
                rule = %change.name,
                what = change.kind().as_str(),
                author = by.author,
                reason = by.reason,
                "the rules have changed"
            );
        }
    }
}

fn kept_rule(kept: &KeptRule) -> proto::KeptRule {
    let run = |(version, slots): (&str, u16)| proto::Run {
        version: version.into(),
        slots: slots.into(),
        ..Default::default()
    };
    proto::KeptRule {
        name: kept.rule.name.to_string(),
        service: kept.rule.service.to_string(),
        toml: kept.rule.to_toml(),
        author: kept.signature.author.clone(),
        reason: kept.signature.reason.clone(),
        changed_unix_ms: kept.signature.changed_unix_ms,
        epoch: kept.epoch,
        runs: kept
            .slots
            .iter()
            .flat_map(|slots| slots.runs())
            .map(run)
            .collect(),
        ..Default::default()
    }
}

fn changed(epoch: u64, changes: &[Change]) -> proto::ChangeRulesResponse {
    let toml = |rule: &Option<Rule>| rule.as_ref().map(Rule::to_toml).unwrap_or_default();
    let change = |change: &Change| proto::RuleChange {
        name: change.name.to_string(),
        what: change.kind().as_str().into(),
        before: toml(&change.before),
        after: toml(&change.after),
        moved_slots: change.moved.map(u32::from),
        ..Default::default()
    };
    proto::ChangeRulesResponse {
        epoch,
        changes: changes.iter().map(change).collect(),
        ..Default::default()
    }
}
