job "constraint-levels" {
  constraint {
    attribute = "${node.datacenter}"
    value     = "dc1"
  }

  group "app" {
    constraint {
      attribute = "${meta.rack}"
      value     = "r1"
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
