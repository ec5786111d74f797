use hydrant_sdk::{Code, Error, Hydrant, Idempotency, Service, Tier};

use crate::proto::{
    OnboardRequest, OnboardResponse, REGISTRATION_SIGN_UP_SPEC, SignUpRequest, SignUpResponse,
};

/// `api/registration`: checks what comes from outside and hands it on.
pub async fn run() -> Result<(), Error> {
    let hydrant = Hydrant::from_env()?;
    let once = Idempotency::new(&hydrant.state()).or_correlation_id();
    Service::new(Tier::Api, "registration", "1.0.0")?
        .endpoint(REGISTRATION_SIGN_UP_SPEC, move |request| {
            sign_up(hydrant.clone(), request)
        })
        // Who sends a key gets the first answer again, and `is_new` is what it was.
        .once(REGISTRATION_SIGN_UP_SPEC, once)
        .run()
        .await
}

async fn sign_up(hydrant: Hydrant, request: SignUpRequest) -> Result<SignUpResponse, Error> {
    let request = checked(request)?;
    let endpoint = "/orchestration/onboarding/registration.v1.Onboarding/Onboard";
    let done: OnboardResponse = hydrant.call(endpoint, request).await?;
    Ok(SignUpResponse {
        customer_id: done.customer_id,
        is_new: done.is_new,
        ..Default::default()
    })
}

fn checked(request: SignUpRequest) -> Result<OnboardRequest, Error> {
    let name = request.name.trim();
    if !(1..=200).contains(&name.chars().count()) {
        return Err(refuse("a name has 1 to 200 characters"));
    }
    let email = request.email.trim().to_ascii_lowercase();
    if !is_email(&email) {
        return Err(refuse("an address is written like ada@example.com"));
    }
    Ok(OnboardRequest {
        name: name.into(),
        email,
        ..Default::default()
    })
}

fn is_email(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._%+-@".contains(&byte);
    let parts = text.split_once('@');
    let two = parts
        .is_some_and(|(user, host)| !user.is_empty() && !host.contains('@') && host.contains('.'));
    two && text.len() <= 254 && text.bytes().all(allowed)
}

fn refuse(message: &str) -> Error {
    Error::new(Code::InvalidArgument, "bad_registration", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign_up(name: &str, email: &str) -> Result<OnboardRequest, Error> {
        checked(SignUpRequest {
            name: name.into(),
            email: email.into(),
            ..Default::default()
        })
    }

    #[test]
    fn registrations_are_checked_at_the_edge() {
        let good = sign_up(" Ada ", "Ada@Example.com").unwrap();
        assert_eq!(
            (good.name.as_str(), good.email.as_str()),
            ("Ada", "ada@example.com")
        );
        for (name, email) in [
            ("", "ada@example.com"),
            ("Ada", "ada"),
            ("Ada", "@example.com"),
            ("Ada", "ada@example@com."),
            ("Ada", "a/b@example.com"),
            ("Ada", "ada@localhost"),
        ] {
            assert!(sign_up(name, email).is_err(), "{name} {email}");
        }
    }
}
