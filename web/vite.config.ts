import { readFileSync } from "node:fs";
import { defineConfig, type Plugin } from "vite";

// The font's licence asks that it travels with the font.
function fontLicence(): Plugin {
  return {
    name: "font-licence",
    generateBundle() {
      this.emitFile({
        type: "asset",
        fileName: "inter-OFL.txt",
        source: readFileSync("node_modules/@fontsource-variable/inter/LICENSE", "utf8"),
      });
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [fontLicence()],
  build: {
    outDir: "../src/farebox/http/static/built",
    emptyOutDir: true,
    manifest: "manifest.json",
    // The content security policy allows files of this origin only, so nothing is put inline.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    rollupOptions: { input: "src/console.ts" },
  },
});
