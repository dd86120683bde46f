# A job describes what is to run. "example" is its id: submitting a file with the same id again updates the job.
job "example" {
  # The region to run in; the agent's own where it is not given.
  #
  # region = "global"

  # Datacenters to run in. Patterns are allowed; "*" stands for all.
  datacenters = ["*"]

  # "service" runs until stopped, "batch" ends, "system" runs on every node, "sysbatch" ends on every node.
  type = "service"

  # Nodes must satisfy all constraints, of the job, the group and the task.
  #
  # constraint {
  #   attribute = "${attr.kernel.name}"
  #   value     = "linux"
  # }

  # How a new version replaces the old one.
  update {
    # Allocations replaced at a time.
    max_parallel = 1

    # How long an allocation must be healthy before it counts.
    min_healthy_time = "10s"

    # An allocation that is not healthy by then is unhealthy.
    healthy_deadline = "3m"

    # The deployment fails if no further allocation gets healthy within this time.
    progress_deadline = "10m"

    # Go back to the last stable version when the deployment fails.
    auto_revert = false

    # Allocations of the new version that run beside the old ones until they are promoted.
    canary = 0
  }

  # How allocations leave a node that is drained.
  migrate {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "10s"
    healthy_deadline = "5m"
  }

  # What the web interface shows about the job.
  ui {
    description = "A Redis cache"
    link {
      label = "Documentation of Redis"
      url   = "https://redis.io/docs"
    }
  }

  # Tasks of one group always run on the same node.
  group "cache" {
    # How many allocations of the group to run.
    count = 1

    # Ports of the node that the group gets; "to" is the port that the task listens on.
    network {
      port "db" {
        to = 6379
      }
    }

    # Registers the group's address under a name.
    service {
      name     = "redis-cache"
      tags     = ["global", "cache"]
      port     = "db"
      provider = "nomad"

      # check {
      #   name     = "alive"
      #   type     = "tcp"
      #   interval = "10s"
      #   timeout  = "2s"
      # }
    }

    # What to do when a task fails on its node.
    restart {
      attempts = 2
      interval = "30m"
      delay    = "15s"
      mode     = "fail"
    }

    # Disk that the tasks share, in MB.
    ephemeral_disk {
      # migrate = true
      # sticky  = true
      size = 300
    }

    # Nodes that are preferred, but not required.
    #
    # affinity {
    #   attribute = "${node.datacenter}"
    #   value     = "us-west1"
    #   weight    = 100
    # }

    # Spreads allocations over the values of an attribute.
    #
    # spread {
    #   attribute = "${node.datacenter}"
    # }

    task "redis" {
      # The driver that runs the task: "docker", "exec", "raw_exec", "java", "qemu".
      driver = "docker"

      # What the driver needs to know.
      config {
        image          = "redis:7"
        ports          = ["db"]
        auth_soft_fail = true
      }

      # Files to fetch before the task starts.
      #
      # artifact {
      #   source = "http://foo.com/artifact.tar.gz"
      #   options {
      #     checksum = "md5:c4aa853ad2215426eb7d70a21922e794"
      #   }
      # }

      # How much of the output is kept.
      #
      # logs {
      #   max_files     = 10
      #   max_file_size = 15
      # }

      # Gives the task a token of its own.
      identity {
        env  = true
        file = true
      }

      # What the task gets: CPU in MHz, memory in MB.
      resources {
        cpu    = 500
        memory = 256
      }

      # Configuration files made from templates.
      #
      # template {
      #   data          = "---\nkey: {{ key \"service/my-key\" }}"
      #   destination   = "local/file.yml"
      #   change_mode   = "signal"
      #   change_signal = "SIGHUP"
      # }

      # Gives the task a token of Vault.
      #
      # vault {
      #   role          = "redis"
      #   change_mode   = "signal"
      #   change_signal = "SIGHUP"
      # }

      # How long the task has to end before it is killed.
      #
      # kill_timeout = "20s"
    }
  }
}
