import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  // Relative addresses, which the web process completes: the console works behind any prefix of a proxy.
  base: "./",
  plugins: [react()],
  worker: { format: "es" },
  build: {
    target: "es2022",
    // A data: address would have to be allowed for scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // One file: a page that was opened before a deployment never asks for a part that is gone.
    rolldownOptions: { output: { codeSplitting: false } },
    chunkSizeWarningLimit: 1500,
  },
});
