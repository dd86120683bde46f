job "constraint-operators" {
  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }
  constraint {
    attribute = "${node.class}"
    operator  = "!="
    value     = "spot"
  }
  constraint {
    attribute = "${attr.cpu.numcores}"
    operator  = ">="
    value     = 4
  }
  constraint {
    attribute = "${meta.zone}"
    operator  = "is_set"
  }
  constraint {
    attribute = "${meta.broken}"
    operator  = "is_not_set"
  }
  constraint {
    attribute = "${attr.os.signals}"
    operator  = "set_contains_any"
    value     = "SIGUSR1,SIGUSR2"
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
