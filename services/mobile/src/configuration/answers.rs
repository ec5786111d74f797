//! What `hydrant.mobile.v1.Configurations` answers.

use std::collections::{BTreeMap, BTreeSet};

use hydrant_flags::Context;
use hydrant_sdk::{Code, Error, Service};
use serde_json::{Map, Value};

use crate::configuration::Configuration;
use crate::configuration::explain::{Explained, Said, explain};
use crate::configuration::layer::Layer;
use crate::proto::{
    CONFIGURATIONS_COMPARE_SPEC, CONFIGURATIONS_EXPLAIN_SPEC, CONFIGURATIONS_LAYERS_SPEC,
    CompareConfigurationsRequest, CompareConfigurationsResponse, ComparedValue, ConfigurationLayer,
    ExplainConfigurationRequest, ExplainConfigurationResponse, ExplainedValue, ListLayersRequest,
    ListLayersResponse, LostValue,
};
use crate::service::{Desk, Refused};

/// The service with the methods that tell what apps get.
pub(crate) fn serve(service: Service, desk: &Desk) -> Service {
    let [a, b, c] = [(); 3].map(|()| desk.clone());
    service
        .endpoint(CONFIGURATIONS_EXPLAIN_SPEC, move |request| {
            explained(a.clone(), request)
        })
        .endpoint(CONFIGURATIONS_COMPARE_SPEC, move |request| {
            compared(b.clone(), request)
        })
        .endpoint(CONFIGURATIONS_LAYERS_SPEC, move |request| {
            layers(c.clone(), request)
        })
}

/// What an app says of itself.
struct Asker {
    attributes: Map<String, Value>,
    now_unix: i64,
}

impl Asker {
    fn read(context: &str, desk: &Desk) -> Result<Self, Error> {
        let text = if context.is_empty() { "{}" } else { context };
        let attributes = serde_json::from_str(text).map_err(|error| {
            let message = format!("the context is no JSON object: {error}");
            Error::new(Code::InvalidArgument, "bad_context", message)
                .mend(r#"write it as {"platform": "ios", "version": "7.2.1", "locale": "de-AT"}"#)
        })?;
        Ok(Self {
            attributes,
            now_unix: desk.clock().unix_ms() / 1000,
        })
    }

    fn context(&self) -> Context<'_> {
        Context {
            targeting_key: self.attributes.get("targetingKey").and_then(Value::as_str),
            attributes: &self.attributes,
            now_unix: self.now_unix,
        }
    }
}

/// The configuration of a revision, and its number. Without tables there is what is published.
async fn of(desk: &Desk, revision: Option<u64>) -> Result<(u64, Configuration), Refused> {
    let bundle = match revision.is_some() || desk.has_tables() {
        true => desk.bundle(revision).await?,
        false => desk.published().bundle().unwrap_or_default(),
    };
    let number = bundle.revision;
    let compiled = Configuration::compile(&bundle).map_err(Refused::mistakes)?;
    Ok((number, compiled))
}

async fn explained(
    desk: Desk,
    request: ExplainConfigurationRequest,
) -> Result<ExplainConfigurationResponse, Refused> {
    let asker = Asker::read(&request.context, &desk)?;
    let (revision, configuration) = of(&desk, request.revision).await?;
    Ok(answer(&configuration, &asker.context(), revision))
}

fn answer(
    configuration: &Configuration,
    context: &Context<'_>,
    revision: u64,
) -> ExplainConfigurationResponse {
    let merged = configuration.merged_for(context);
    let layers = served(configuration, context);
    let told = |(pointer, one): (String, Explained)| value(&layers, pointer, one);
    let explained = explain(layers.iter().map(|layer| &layer.values));
    ExplainConfigurationResponse {
        revision,
        configuration: merged.json.to_string(),
        values: explained.into_iter().map(told).collect(),
        layers: layers.iter().map(|layer| layer.name.clone()).collect(),
        cohorts: configuration
            .cohorts_of(context)
            .map(str::to_owned)
            .collect(),
        left_out: merged.left_out.clone(),
        ..Default::default()
    }
}

/// The layers that are merged for who asks.
fn served<'a>(configuration: &'a Configuration, context: &Context<'_>) -> Vec<&'a Layer> {
    let merged = configuration.merged_for(context);
    let mut layers = configuration.explained_for(context);
    layers.retain(|layer| !merged.left_out.contains(&layer.name));
    layers
}

fn value(layers: &[&Layer], pointer: String, one: Explained) -> ExplainedValue {
    let lost = |said: Said| LostValue {
        layer: layers[said.layer].name.clone(),
        value: said.value.map(|value| value.to_string()),
        ..Default::default()
    };
    ExplainedValue {
        pointer,
        layer: layers[one.won.layer].name.clone(),
        value: one.won.value.map(|value| value.to_string()),
        lost: one.lost.into_iter().map(lost).collect(),
        ..Default::default()
    }
}

async fn compared(
    desk: Desk,
    request: CompareConfigurationsRequest,
) -> Result<CompareConfigurationsResponse, Refused> {
    let from = request.from.into_option().unwrap_or_default();
    let to = request.to.into_option().unwrap_or_default();
    let (from, to) = (
        explained(desk.clone(), from).await?,
        explained(desk, to).await?,
    );
    Ok(CompareConfigurationsResponse {
        from_revision: from.revision,
        to_revision: to.revision,
        values: differences(&from, &to),
        ..Default::default()
    })
}

/// The places whose values differ, with the layers that they are from.
fn differences(
    from: &ExplainConfigurationResponse,
    to: &ExplainConfigurationResponse,
) -> Vec<ComparedValue> {
    let (before, after) = (present(from), present(to));
    let pointers: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let one = |pointer: &str| {
        let (before, after) = (before.get(pointer), after.get(pointer));
        let value = |side: Option<&&ExplainedValue>| side.and_then(|one| one.value.clone());
        let layer = |side: Option<&&ExplainedValue>| side.map_or("", |one| &one.layer).to_owned();
        (value(before) != value(after)).then(|| ComparedValue {
            pointer: pointer.to_owned(),
            before: value(before),
            before_layer: layer(before),
            after: value(after),
            after_layer: layer(after),
            ..Default::default()
        })
    };
    pointers.into_iter().filter_map(one).collect()
}

fn present(explained: &ExplainConfigurationResponse) -> BTreeMap<&str, &ExplainedValue> {
    let values = explained.values.iter();
    values
        .filter(|one| one.value.is_some())
        .map(|one| (one.pointer.as_str(), one))
        .collect()
}

async fn layers(desk: Desk, request: ListLayersRequest) -> Result<ListLayersResponse, Refused> {
    let (revision, configuration) = of(&desk, request.revision).await?;
    let one = |layer: &Layer| ConfigurationLayer {
        name: layer.name.clone(),
        level: layer.when.level().as_str().into(),
        when: layer.when.written.to_string(),
        values: layer.values.to_string(),
        ..Default::default()
    };
    Ok(ListLayersResponse {
        revision,
        layers: configuration.layers().iter().map(one).collect(),
        ..Default::default()
    })
}
