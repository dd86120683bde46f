job "hcl1-lists-of-objects" {
  "type" = "batch"
  constraint = [
    { attribute = "${attr.kernel.name}", value = "linux" },
    { attribute = "${attr.cpu.arch}", value = "amd64" },
  ]
  group "web" {
    task "main" {
      driver = "raw_exec"
      config { command = "/bin/true" }
      artifact = [{ source = "https://example.org/a.zip" }]
    }
  }
}
