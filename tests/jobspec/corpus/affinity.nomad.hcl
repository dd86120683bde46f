job "affinity" {
  affinity {
    attribute = "${node.datacenter}"
    value     = "dc1"
    weight    = 100
  }
  affinity {
    attribute = "${meta.tier}"
    operator  = "!="
    value     = "old"
    weight    = -30
  }
  affinity {
    attribute = "${attr.kernel.version}"
    semver    = ">= 6.0"
  }
  affinity {
    attribute = "${attr.nomad.version}"
    version   = ">= 1.9"
  }
  affinity {
    attribute = "${node.unique.name}"
    regexp    = "^fast-"
  }
  affinity {
    attribute    = "${meta.features}"
    set_contains = "ssd"
  }
  affinity {
    attribute        = "${meta.features}"
    set_contains_all = "ssd,nvme"
  }
  affinity {
    attribute        = "${meta.features}"
    set_contains_any = "ssd,nvme"
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
