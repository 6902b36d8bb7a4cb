// Documents of models and tools, under the names of the REST API. Secrets go in, and never come out. Times are RFC 3339.

/** A secret as it is shown. Given back in a change, it stays what it is. */
export interface RestShownSecret {
  /** There is one. */
  has_secret: true;
  /** How it ends, where it has 20 characters or more. */
  last_four?: string;
}

/** A secret as it is given. */
export interface NewRestSecret {
  /** Kept sealed, and never shown. */
  secret: string;
}

/** Headers or variables as they are shown. */
export type RestShownValues = Record<string, string | RestShownSecret>;

/**
 * Headers or variables by their names: up to 64, with names of up to 128 bytes and values of 1 to 16,384 bytes without control
 * characters. `{ secret }` is kept sealed, and never shown.
 */
export type NewRestValues = Record<string, string | NewRestSecret>;

/** The same of a change, value by value: what is left out stays, and null takes one away. */
export type RestValuesChange = Record<string, string | NewRestSecret | RestShownSecret | null>;

/** Whose interface a provider speaks. `azure_openai` and `custom` need a `base_url`; `ollama` is on the machine of the agent. */
export type RestLlmProviderKind = "openai" | "anthropic" | "azure_openai" | "google" | "mistral" | "ollama" | "custom";

/** Where the agents of a workspace reach language models. */
export interface RestLlmProvider {
  /** Made by the control plane; stays the same. */
  id: string;
  /** The workspace that it belongs to. */
  workspace_id: string;
  /** `default_llm_provider` in the settings of the workspace, and agents, may name it. */
  name: string;
  /** Whose interface it speaks. */
  kind: RestLlmProviderKind;
  /** Where it is. */
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
  /** When it was made. */
  create_time: string;
  /** When it was changed last. */
  update_time: string;
}

/** A provider that is wanted. */
export interface NewRestLlmProvider {
  /** The workspace that it belongs to. */
  workspace_id: string;
  /** 1 to 100 characters; no two providers of a workspace have the same. */
  name: string;
  /** Whose interface it speaks. */
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
  /** Whose interface it speaks. */
  kind?: RestLlmProviderKind;
  /** Null: that of its kind. */
  base_url?: string | null;
  /** Null: none is preferred. */
  default_model?: string | null;
  /** Null: all that it has. */
  models?: string[] | null;
  /** Header by header. Null: none. */
  headers?: RestValuesChange | null;
  /** Null takes it away. */
  api_key?: string | null;
}

/** What every MCP server has. */
export interface RestMcpServerBase {
  /** Made by the control plane; stays the same. */
  id: string;
  /** The workspace that it belongs to. */
  workspace_id: string;
  /** Sandboxes name it in `mcp_servers`. */
  name: string;
  /** One more with each change; the tag says the same. */
  revision: number;
  /** When it was made. */
  create_time: string;
  /** When it was changed last. */
  update_time: string;
}

/** A server that is started in the sandbox, and spoken to over its standard input and output. */
export interface RestStdioMcpServer extends RestMcpServerBase {
  /** How it is spoken to. */
  transport: "stdio";
  /** The program. */
  command: string;
  /** Left out: none. */
  args?: string[];
  /** Variables of the program. Left out: none. */
  env?: RestShownValues;
}

/** A server that is reached over HTTP. */
export interface RestHttpMcpServer extends RestMcpServerBase {
  /** How it is spoken to. */
  transport: "http";
  /** Where it is. */
  url: string;
  /** Sent with each request. Left out: none. */
  headers?: RestShownValues;
}

/** Tools for the agents of a workspace; `transport` says which of the two it is. */
export type RestMcpServer = RestStdioMcpServer | RestHttpMcpServer;

/** A server that is wanted, to be started in the sandbox. */
export interface NewRestStdioMcpServer {
  /** The workspace that it belongs to. */
  workspace_id: string;
  /** 1 to 100 characters; no two MCP servers of a workspace have the same. */
  name: string;
  /** How it is spoken to. */
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
  /** The workspace that it belongs to. */
  workspace_id: string;
  /** 1 to 100 characters; no two MCP servers of a workspace have the same. */
  name: string;
  /** How it is spoken to. */
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
  /** No two MCP servers of a workspace have the same. */
  name?: string;
  /** How it is spoken to. */
  transport?: "stdio" | "http";
  /** Of `stdio`: the program. */
  command?: string;
  /** Of `stdio`: its arguments. Null: none. */
  args?: string[] | null;
  /** Of `stdio`: variables of the program, one by one. Null: none. */
  env?: RestValuesChange | null;
  /** Of `http`. */
  url?: string;
  /** Of `http`: header by header. Null: none. */
  headers?: RestValuesChange | null;
}
