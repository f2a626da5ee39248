//! The way to Secret Manager: Google's client, messages and credentials over our own HTTP. Google's own transport follows
//! redirects, has no switch against that, and carries a payload on to wherever a 307 leads; ours follows none.

use google_cloud_auth::credentials::{CacheableResource, Credentials};
use google_cloud_gax::Result;
use google_cloud_gax::error::Error;
use google_cloud_gax::error::rpc::Status;
use google_cloud_gax::options::RequestOptions;
use google_cloud_gax::response::Response;
use google_cloud_secretmanager_v1::model::{
    AccessSecretVersionRequest, AccessSecretVersionResponse, AddSecretVersionRequest, CreateSecretRequest, DeleteSecretRequest,
    DestroySecretVersionRequest, DisableSecretVersionRequest, GetSecretRequest, ListSecretVersionsRequest, ListSecretVersionsResponse,
    Secret, SecretVersion, UpdateSecretRequest,
};
use google_cloud_secretmanager_v1::stub::SecretManagerService;
use http::Extensions;
use reqwest::{Method, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::sink::wire;

/// The service of Google Cloud itself, as most have it.
const UNIVERSE: &str = "googleapis.com";

/// A service with our credentials. The calls that it does not have are never made here.
#[derive(Debug)]
pub(super) struct Way {
    http: reqwest::Client,
    credentials: Credentials,
    base: String,
}

impl Way {
    /// The way to that endpoint, or to the one of the credentials' own cloud.
    ///
    /// # Errors
    /// Why there can be none.
    pub async fn new(credentials: Credentials, endpoint: Option<&str>) -> std::result::Result<Self, String> {
        let base = match endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => {
                let universe = credentials.universe_domain().await.unwrap_or_else(|| UNIVERSE.to_owned());
                format!("https://secretmanager.{universe}")
            }
        };
        let http = wire::client(base.split(':').next().unwrap_or_default(), None)?;
        Ok(Self { http, credentials, base })
    }

    async fn ask<T: DeserializeOwned>(&self, verb: Method, path: &str, query: &[(&str, &str)]) -> Result<Response<T>> {
        self.call(verb, path, query, None).await
    }

    async fn tell<T: DeserializeOwned>(
        &self,
        verb: Method,
        path: &str,
        query: &[(&str, &str)],
        body: &(impl Serialize + Sync),
    ) -> Result<Response<T>> {
        let body = Zeroizing::new(serde_json::to_vec(body).map_err(Error::ser)?);
        self.call(verb, path, query, Some(body)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        verb: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Response<T>> {
        let mut url = Url::parse(&format!("{}/v1/{path}", self.base)).map_err(Error::io)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let CacheableResource::New { data: login, .. } =
            self.credentials.headers(Extensions::new()).await.map_err(Error::authentication)?
        else {
            return Err(Error::io("the credentials gave nothing"));
        };
        let mut request = self.http.request(verb, url).headers(login);
        if let Some(body) = body {
            request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body.to_vec());
        }
        let mut answer = request.send().await.map_err(|error| Error::io(wire::deepest(&error.without_url())))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let Some(body) = wire::body(&mut answer).await.map_err(Error::io)? else {
            return Err(Error::deser("the answer has no end"));
        };
        if status.is_success() {
            return serde_json::from_slice(&body).map(Response::from).map_err(Error::deser);
        }
        let body = bytes::Bytes::copy_from_slice(&body);
        Err(match Status::try_from(&body) {
            Ok(said) => Error::service_with_http_metadata(said, Some(status.as_u16()), Some(headers)),
            Err(_) => Error::http(status.as_u16(), headers, body),
        })
    }
}

/// Paths and queries as Secret Manager's REST reference has them. Names were checked before: none needs an escape.
impl SecretManagerService for Way {
    async fn get_secret(&self, request: GetSecretRequest, _: RequestOptions) -> Result<Response<Secret>> {
        self.ask(Method::GET, &request.name, &[]).await
    }

    async fn create_secret(&self, request: CreateSecretRequest, _: RequestOptions) -> Result<Response<Secret>> {
        let query = [("secretId", request.secret_id.as_str())];
        self.tell(Method::POST, &format!("{}/secrets", request.parent), &query, &request.secret).await
    }

    async fn update_secret(&self, request: UpdateSecretRequest, _: RequestOptions) -> Result<Response<Secret>> {
        let mask = request.update_mask.map(|mask| mask.paths.join(",")).unwrap_or_default();
        let name = request.secret.as_ref().map(|secret| secret.name.clone()).unwrap_or_default();
        self.tell(Method::PATCH, &name, &[("updateMask", mask.as_str())], &request.secret).await
    }

    async fn delete_secret(&self, request: DeleteSecretRequest, _: RequestOptions) -> Result<Response<()>> {
        let gone = self.ask::<serde_json::Value>(Method::DELETE, &request.name, &[("etag", request.etag.as_str())]).await;
        gone.map(|_| Response::from(()))
    }

    async fn access_secret_version(
        &self,
        request: AccessSecretVersionRequest,
        _: RequestOptions,
    ) -> Result<Response<AccessSecretVersionResponse>> {
        self.ask(Method::GET, &format!("{}:access", request.name), &[]).await
    }

    async fn add_secret_version(&self, request: AddSecretVersionRequest, _: RequestOptions) -> Result<Response<SecretVersion>> {
        self.tell(Method::POST, &format!("{}:addVersion", request.parent), &[], &request).await
    }

    async fn list_secret_versions(
        &self,
        request: ListSecretVersionsRequest,
        _: RequestOptions,
    ) -> Result<Response<ListSecretVersionsResponse>> {
        let query =
            [("pageSize", request.page_size.to_string()), ("pageToken", request.page_token.clone()), ("filter", request.filter.clone())];
        let query: Vec<(&str, &str)> =
            query.iter().map(|(key, value)| (*key, value.as_str())).filter(|(_, value)| !value.is_empty()).collect();
        self.ask(Method::GET, &format!("{}/versions", request.parent), &query).await
    }

    async fn disable_secret_version(&self, request: DisableSecretVersionRequest, _: RequestOptions) -> Result<Response<SecretVersion>> {
        self.tell(Method::POST, &format!("{}:disable", request.name), &[], &request).await
    }

    async fn destroy_secret_version(&self, request: DestroySecretVersionRequest, _: RequestOptions) -> Result<Response<SecretVersion>> {
        self.tell(Method::POST, &format!("{}:destroy", request.name), &[], &request).await
    }
}
