// The page of ofrep-web.mjs: OpenFeature's SDK for browsers and its OFREP provider, as an app has them.
import { OpenFeature, ProviderEvents } from "@openfeature/web-sdk";
import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";

const events = [];
const client = OpenFeature.getClient();
for (const event of Object.values(ProviderEvents)) {
  client.addHandler(event, (details) => events.push({ event, ...details }));
}

window.start = async ({ base, key, context, poll, detect }) => {
  await OpenFeature.setContext(context);
  const provider = new OFREPWebProvider({
    baseUrl: base,
    headers: key ? [["Authorization", `Bearer ${key}`]] : [],
    pollInterval: poll ?? 0,
    changeDetection: detect ?? "sse",
    cacheMode: "disabled",
  });
  await OpenFeature.setProviderAndWait(provider).catch(() => {});
  return { status: client.providerStatus };
};

window.context = async (context) => {
  await OpenFeature.setContext(context);
  return {};
};

window.flag = ({ flag, default: fallback }) => {
  const ask = {
    boolean: "getBooleanDetails",
    string: "getStringDetails",
    number: "getNumberDetails",
    object: "getObjectDetails",
  }[typeof fallback];
  return client[ask](flag, fallback);
};

window.told = () => ({ status: client.providerStatus, events });
