// Documents of models and tools, under the names of the REST API. Secrets go in, and never come out. Times are RFC 3339.

/** A secret as it is shown. Given back in a change, it stays what it is. */
export interface RestShownSecret {
  has_secret: true;
  /** How it ends, where it has 20 characters or more. */
  last_four?: string;
}

/** Headers or variables as they are shown. */
export type RestShownValues = Record<string, string | RestShownSecret>;

/**
 * Headers or variables by their names: up to 64, with names of up to 128 bytes and values of 1 to 16,384 bytes without control
 * characters. `{ secret }` is kept sealed, and never shown.
 */
export type NewRestValues = Record<string, string | { secret: string }>;

/** The same of a change, value by value: what is left out stays, and null takes one away. */
export type RestValuesChange = Record<string, string | { secret: string } | RestShownSecret | null>;

/** Whose interface a provider speaks. `azure_openai` and `custom` need a `base_url`; `ollama` is on the machine of the agent. */
export type RestLlmProviderKind = "openai" | "anthropic" | "azure_openai" | "google" | "mistral" | "ollama" | "custom";

/** Where the agents of a workspace reach language models. */
export interface RestLlmProvider {
  id: string;
  workspace_id: string;
  /** `default_llm_provider` in the settings of the workspace, and agents, may name it. */
  name: string;
  kind: RestLlmProviderKind;
  base_url: string;
  /** Left out: none is preferred. */
  default_model?: string;
  /** Empty: all that it has. */
  models: string[];
  /** Sent with each request. */
  headers: RestShownValues;
  /** The key itself is never shown. */
  has_api_key: boolean;
  /** How the key ends, where it has 20 characters or more. */
  api_key_last_four?: string;
  /** One more with each change; the tag says the same. */
  revision: number;
  create_time: string;
  update_time: string;
}

/** A provider that is wanted. */
export interface NewRestLlmProvider {
  workspace_id: string;
  /** 1 to 100 characters; no two providers of a workspace have the same. */
  name: string;
  kind: RestLlmProviderKind;
  /** `http` or `https`, up to 2,048 bytes, without a name or a password. Default: that of its kind. */
  base_url?: string;
  /** Up to 200 characters; one of `models`, where those are named. Default: none is preferred. */
  default_model?: string;
  /** Up to 200 names of 1 to 200 characters. Default: all that it has. */
  models?: string[];
  /** Sent with each request. */
  headers?: NewRestValues;
  /** 1 to 16,384 bytes. Kept sealed, and never shown. */
  api_key?: string;
}

/**
 * What is to change of a provider; limits are those of {@link NewRestLlmProvider}. What is left out stays, and null goes back to its
 * default.
 */
export interface RestLlmProviderChange {
  /** The default of a workspace keeps its name. */
  name?: string;
  kind?: RestLlmProviderKind;
  base_url?: string | null;
  default_model?: string | null;
  models?: string[] | null;
  headers?: RestValuesChange | null;
  /** Null takes it away. */
  api_key?: string | null;
}

/** What every MCP server has. */
export interface RestMcpServerBase {
  id: string;
  workspace_id: string;
  /** Sandboxes name it in `mcp_servers`. */
  name: string;
  /** One more with each change; the tag says the same. */
  revision: number;
  create_time: string;
  update_time: string;
}

/** A server that is started in the sandbox, and spoken to over its standard input and output. */
export interface RestStdioMcpServer extends RestMcpServerBase {
  transport: "stdio";
  command: string;
  /** Left out: none. */
  args?: string[];
  /** Variables of the program. Left out: none. */
  env?: RestShownValues;
}

/** A server that is reached over HTTP. */
export interface RestHttpMcpServer extends RestMcpServerBase {
  transport: "http";
  url: string;
  /** Sent with each request. Left out: none. */
  headers?: RestShownValues;
}

/** Tools for the agents of a workspace; `transport` says which of the two it is. */
export type RestMcpServer = RestStdioMcpServer | RestHttpMcpServer;

/** A server that is wanted, to be started in the sandbox. */
export interface NewRestStdioMcpServer {
  workspace_id: string;
  /** 1 to 100 characters; no two MCP servers of a workspace have the same. */
  name: string;
  transport: "stdio";
  /** The program: 1 to 4,096 bytes. */
  command: string;
  /** Up to 100, of up to 4,096 bytes each. */
  args?: string[];
  /** Variables of the program. */
  env?: NewRestValues;
}

/** A server that is wanted, to be reached over HTTP. */
export interface NewRestHttpMcpServer {
  workspace_id: string;
  /** 1 to 100 characters; no two MCP servers of a workspace have the same. */
  name: string;
  transport: "http";
  /** `http` or `https`, up to 2,048 bytes, without a name or a password. */
  url: string;
  /** Sent with each request. */
  headers?: NewRestValues;
}

/** A server that is wanted. */
export type NewRestMcpServer = NewRestStdioMcpServer | NewRestHttpMcpServer;

/**
 * What is to change of a server; limits are those of {@link NewRestMcpServer}. What is left out stays, and null goes back to its
 * default. Another `transport` takes with it what only the one before had.
 */
export interface RestMcpServerChange {
  name?: string;
  transport?: "stdio" | "http";
  command?: string;
  args?: string[] | null;
  env?: RestValuesChange | null;
  url?: string;
  headers?: RestValuesChange | null;
}
