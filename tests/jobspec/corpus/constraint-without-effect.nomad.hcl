job "constraint-without-effect" {
  constraint {
    attribute        = "${meta.features}"
    value            = "ssd"
    set_contains_any = "gpu"
  }
  constraint {
    attribute        = "${meta.features}"
    value            = "ssd"
    set_contains_all = "gpu"
  }
  constraint {
    attribute = "${meta.zone}"
    value     = "a"
    is_set    = "true"
  }
  constraint {
    attribute  = "${meta.zone}"
    value      = "a"
    is_not_set = "true"
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
