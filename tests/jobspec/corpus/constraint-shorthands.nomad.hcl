job "constraint-shorthands" {
  constraint {
    attribute = "${attr.nomad.version}"
    version   = ">= 1.2, < 3"
  }
  constraint {
    attribute = "${attr.kernel.version}"
    semver    = ">= 5.0"
  }
  constraint {
    attribute = "${attr.cpu.arch}"
    regexp    = "amd64|arm64"
  }
  constraint {
    attribute    = "${meta.features}"
    set_contains = "ssd,gpu"
  }

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
